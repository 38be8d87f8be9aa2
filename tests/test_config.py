"""What may stand in `guard.toml`, and what is said about what may not."""

from pathlib import Path

import msgspec
import pytest

from guard.config import load_config, settings, single_pack_config, split_address
from guard.errors import ConfigError

FULL = """
[gateway]
listen = "192.0.2.1:8001"
insecure = true
secret_file = "secret"
passthrough_rpcs = ["ModelConfig"]

[[models]]
name = "production"
pack = "packs/signs"
upstream = "grpc://127.0.0.1:9001"
mode = "enforce"
on_flag = "block"
[models.input]
tensor = "pixels"
layout = "NHWC"
scale = 255.0
[models.output]
tensor = "logits"
classes = ["a", "b"]
"""


def write(folder: Path, text: str) -> Path:
    """The text as a settings file in this folder."""
    path = folder / "guard.toml"
    path.write_text(text)
    return path


def test_a_full_file_is_read_with_its_defaults_filled_in(tmp_path: Path) -> None:
    """Every section is decoded, and what is not said has its documented default."""
    config = load_config(write(tmp_path, FULL))
    model = config.models[0]
    assert (model.name, model.answer, model.input.layout) == ("production", "upstream", "NHWC")
    assert model.output.classes == ["a", "b"]
    assert config.gateway.max_message_bytes == 64 << 20
    assert model.on_error == "block"


def test_relative_paths_start_from_the_file(tmp_path: Path) -> None:
    """A config moved with its packs keeps working from any working directory."""
    text = FULL.replace("grpc://127.0.0.1:9001", "onnx:production.onnx")
    config = load_config(write(tmp_path, text))
    assert config.models[0].pack == str(tmp_path / "packs/signs")
    assert config.models[0].upstream == f"onnx:{tmp_path / 'production.onnx'}"
    assert config.gateway.secret_file == str(tmp_path / "secret")


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("listen =", "listne =", "gateway.listne"),
        ('mode = "enforce"', 'mode = "Enforce"', "models[0].mode"),
        ("scale = 255.0", "scale = 0.0", "models[0].input.scale"),
        ("scale = 255.0", 'scale = "x"', "models[0].input.scale"),
        ("scale = 255.0", "sacle = 255.0", "models[0].input.sacle"),
        ('pack = "packs/signs"', "", "models[0].pack"),
        ("grpc://", "http://", "models[0].upstream"),
        ('upstream = "grpc://127.0.0.1:9001"', "", "models[0].upstream"),
        ("192.0.2.1:8001", "192.0.2.1", "gateway.listen"),
        ('"ModelConfig"', '"RepositoryModelLoad"', "gateway.passthrough_rpcs[0]"),
        ('on_flag = "block"', "max_false_positive_rate = 1.5", "models[0].max_false_positive_rate"),
        ('on_flag = "block"', "max_request_bytes = 999999999", "models[0].max_request_bytes"),
        ('on_flag = "block"', 'on_flag = "substitute"\nanswer = "ensemble"', "models[0].on_flag"),
        ('on_flag = "block"', 'tls = {ca = "x"}', "models[0].tls"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(tmp_path: Path, old: str, new: str, key: str) -> None:
    """Whatever is wrong, the message carries the key an operator has to look at."""
    assert old in FULL
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, FULL.replace(old, new)))
    assert caught.value.key == key
    assert key in str(caught.value)


def test_a_model_name_may_be_used_once(tmp_path: Path) -> None:
    """Two models of one name would leave one of them unguarded."""
    twice = FULL + '[[models]]\nname = "production"\npack = "p"\n'
    with pytest.raises(ConfigError, match="used twice"):
        load_config(write(tmp_path, twice))


@pytest.mark.parametrize("text", ["[gateway", "\xff"])
def test_a_file_that_is_not_toml_is_one_plain_line(tmp_path: Path, text: str) -> None:
    """Broken syntax is a ConfigError like any other."""
    path = tmp_path / "guard.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match="not TOML"):
        load_config(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The path is in the message."""
    with pytest.raises(ConfigError, match="nowhere"):
        load_config(tmp_path / "nowhere.toml")


def test_full_exposure_is_a_default_only_on_loopback(tmp_path: Path) -> None:
    """Scores are an attacker's compass, so the open network gets the decision alone."""
    open_network = load_config(write(tmp_path, FULL))
    loopback = load_config(write(tmp_path, FULL.replace("192.0.2.1", "127.0.0.1")))
    assert open_network.policy(open_network.models[0]).expose == "decision"
    assert loopback.policy(loopback.models[0]).expose == "full"


def test_one_pack_needs_no_file(tmp_path: Path) -> None:
    """`guard serve --pack` names the model after the folder and lets the ensemble answer."""
    config = single_pack_config(tmp_path / "signs", listen="127.0.0.1:0", metrics="")
    assert config.models[0].name == "signs"
    assert config.models[0].answer == "ensemble"
    assert config.policy(config.models[0]).mode == "monitor"


def test_every_setting_is_described() -> None:
    """The README table is checked against this list, so no setting may be silent."""
    rows = {key: (default, text) for key, default, text in settings()}
    assert rows["models.name"][0] is msgspec.NODEFAULT
    assert rows["gateway.max_in_flight"][0] == 64
    assert "models.input.scale" in rows
    assert all(text for _, text in rows.values())


def test_addresses_are_host_and_port() -> None:
    """IPv6 literals keep their brackets, nonsense is refused."""
    assert split_address("[::1]:80", key="x") == ("[::1]", 80)
    with pytest.raises(ConfigError, match="x: "):
        split_address("nowhere:http", key="x")
