"""The demo's servers: started, refused with a reason, and gone afterwards."""

from pathlib import Path

import pytest

from guard.config import load_config
from guard.demo.processes import free_port, gateway, production, running, write_config
from guard.demo.traffic import ask_both, probabilities, scrape
from guard.errors import GuardError
from guard.testing import classifier_onnx, clean_images, make_pack


def test_the_config_is_one_that_guard_reads(tmp_path: Path) -> None:
    """Enforcing, blocking, exposed in full, with paths beside the file."""
    pack = make_pack(tmp_path / 'odd "name"')
    path = write_config(
        tmp_path / "guard.toml", pack=pack, upstream=1, listen=2, metrics=3, budget=0.01
    )
    config = load_config(path)
    (model,) = config.models
    assert (model.mode, model.on_flag, model.on_error) == ("enforce", "block", "block")
    assert Path(model.pack) == pack
    assert Path(model.calibration) == tmp_path / "calibration.npz"
    assert config.gateway.listen == "127.0.0.1:2"
    assert config.gateway.metrics == "127.0.0.1:3"


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The last line of its log becomes the error."""
    log, port = tmp_path / "gateway.log", free_port()
    with (
        pytest.raises(GuardError, match=r"gateway did not start: .*missing\.toml"),
        running(gateway(tmp_path / "missing.toml"), port=port, log=log),
    ):
        pass


def test_production_and_gateway_answer_over_the_wire(tmp_path: Path) -> None:
    """Both doors give production's answer on clean pictures; the gateway counts them."""
    model = tmp_path / "model.onnx"
    model.write_bytes(classifier_onnx())
    ports = [free_port() for _ in range(3)]
    config = write_config(
        tmp_path / "guard.toml",
        pack=make_pack(tmp_path / "tiny"),
        upstream=ports[0],
        listen=ports[1],
        metrics=ports[2],
        budget=0.01,
    )
    text = config.read_text().replace('calibration = "calibration.npz"\n', "")
    config.write_text(text.replace('secret_file = "secret"\n', ""))
    images = (clean_images([0, 1, 2]) * 255).astype("uint8")
    with (
        running(production(model, port=ports[0]), port=ports[0], log=tmp_path / "a.log") as direct,
        running(gateway(config), port=ports[1], log=tmp_path / "b.log") as guarded,
    ):
        first, second = ask_both(direct, guarded, images, say=print)
        assert first.labels.tolist() == second.labels.tolist() == [0, 1, 2]
        assert probabilities(direct, images).argmax(1).tolist() == [0, 1, 2]
        images[:, :, :, ::2] -= 40
        first, second = ask_both(direct, guarded, images, say=print)
        assert second.blocked.all()
        assert not first.blocked.any()
        counts = scrape(ports[2])
    assert counts['guard_verdicts_total{decision="ALLOW",model="signs"}'] == 3
    assert counts['guard_verdicts_total{decision="BLOCK",model="signs"}'] == 3
