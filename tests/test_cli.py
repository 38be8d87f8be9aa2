"""The command line: help with an example, one plain line on error, the right exit status."""

import json
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from guard.cli import main
from guard.testing import classifier_onnx, clean_images, make_pack


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pack."""
    return make_pack(tmp_path_factory.mktemp("packs") / "tiny")


def run(*arguments: object) -> tuple[int, str]:
    """Exit status and everything printed."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command there is."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name)


def config(folder: Path, pack: Path, *lines: str) -> Path:
    """A config for the tiny pack and an upstream in a file."""
    (folder / "model.onnx").write_bytes(classifier_onnx())
    text = ["[[models]]", 'name = "tiny"', f'pack = "{pack}"', 'upstream = "onnx:model.onnx"']
    (folder / "guard.toml").write_text("\n".join([*text, *lines]) + "\n")
    return folder / "guard.toml"


@pytest.mark.parametrize("path", list(leaves(main)), ids=" ".join)
def test_every_command_explains_itself_with_an_example(path: tuple[str, ...]) -> None:
    """--help says what the command does and shows a line to type."""
    status, text = run(*path, "--help")
    assert status == 0
    assert "Example: guard" in text


def test_check_explains_and_prices(tmp_path: Path, pack: Path) -> None:
    """The chain, the price, the posture and the upstream's answer to a grey picture."""
    status, text = run("check", config(tmp_path, pack))
    assert status == 0, text
    for piece in (
        "detector",
        "forward passes",
        "false-alarm budget",
        "closed",
        "upstream: answers 3",
    ):
        assert piece in text


def test_check_refuses_a_pair_that_does_not_fit(tmp_path: Path, pack: Path) -> None:
    """An upstream with other classes than the pack is refused."""
    path = config(tmp_path, pack)
    (tmp_path / "model.onnx").write_bytes(classifier_onnx((2, 8, 8)))
    status, text = run("check", path)
    assert status in (1, 2)
    assert "Traceback" not in text
    assert text.startswith("guard: ") or "\nguard: " in text


def test_check_says_whether_drift_is_watched(tmp_path: Path, pack: Path) -> None:
    """Off by default, and what the settings mean where it is on."""
    assert "traffic is not compared with the calibration" in run("check", config(tmp_path, pack))[1]
    watched = config(tmp_path, pack, "[models.drift]", "watch = true", "every = 30")
    text = run("check", watched)[1]
    assert "drift: one picture in 30 compared with the calibration and the first 2000" in text


def test_check_says_how_much_answers_tell(tmp_path: Path, pack: Path) -> None:
    """All of it by default, and what is taken away where something is."""
    assert "tells: answers in full" in run("check", config(tmp_path, pack))[1]
    lines = ["[models.output.harden]", "top_k = 2", "decimals = 1", 'exempt = ["analyst"]']
    text = run("check", config(tmp_path, pack, *lines))[1]
    assert "tells: the first 2 classes, 1 decimals; in full to analyst" in text


def test_check_names_an_unknown_key(tmp_path: Path, pack: Path) -> None:
    """A typo in the settings is exit status 2 and names the key."""
    status, text = run("check", config(tmp_path, pack, "budged = 0.1"))
    assert status == 2
    assert "budged" in text


def test_calibrate_writes_what_serving_reads(tmp_path: Path, pack: Path) -> None:
    """Calibrating for an upstream on a folder of pictures gives a file that check accepts."""
    for index in range(150):
        for name in ("red", "green", "blue"):
            folder = tmp_path / "data" / name
            folder.mkdir(parents=True, exist_ok=True)
            picture = clean_images([("red", "green", "blue").index(name)])[0].transpose(1, 2, 0)
            noise = np.random.default_rng(index).random(picture.shape) * 0.1
            pixels = ((picture + noise) * 255).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.png")
    path = config(tmp_path, pack)
    status, text = run("calibrate", path, "--data", tmp_path / "data")
    assert status == 0, text
    assert (tmp_path / "tiny.npz").exists()
    status, text = run("check", config(tmp_path, pack, 'calibration = "tiny.npz"'))
    assert status == 0, text
    assert "calibration: 450 images (onnx:" in text


def test_inspect_gives_a_verdict_a_picture(tmp_path: Path, pack: Path) -> None:
    """A picture file of any size gets one JSON object with a decision."""
    Image.new("RGB", (30, 20), (200, 40, 40)).save(tmp_path / "red.png")
    status, text = run("inspect", tmp_path / "red.png", "--pack", pack, "--json")
    assert status == 0, text
    record = json.loads(text)
    assert record["decision"] in ("ALLOW", "FLAG")
    assert 0 < record["p_value"] <= 1


def test_inspect_names_a_broken_picture(tmp_path: Path, pack: Path) -> None:
    """A file that is no picture is exit status 1 and is named."""
    (tmp_path / "broken.png").write_bytes(b"no picture")
    status, text = run("inspect", tmp_path / "broken.png", "--pack", pack)
    assert status == 1
    assert "broken.png" in text


def test_verify_says_what_it_trusts(pack: Path) -> None:
    """A good pack prints its digest, an altered one is exit status 1."""
    status, text = run("pack", "verify", pack)
    assert (status, "sha256:" in text) == (0, True)


def test_verify_refuses_an_altered_pack(tmp_path: Path) -> None:
    """One byte is enough."""
    folder = make_pack(tmp_path / "tiny")
    (folder / "MODEL_CARD.md").write_text("better than it is\n")
    status, text = run("pack", "verify", folder)
    assert status == 1
    assert "altered" in text


def test_serve_needs_one_source() -> None:
    """Neither a config nor a pack is misuse."""
    assert run("serve")[0] == 2


def test_a_missing_data_set_is_one_line(tmp_path: Path) -> None:
    """Training on nothing says what was not found."""
    status, text = run("pack", "build", tmp_path / "none", "--out", tmp_path / "p")
    assert status == 1
    assert "none" in text
