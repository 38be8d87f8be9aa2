"""deploy/docs/training-data.md, command by command, and the exit statuses it promises."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from guard.cli import main
from guard.data import ImageSet, signs
from guard.data.check import JPEG_SHARE, LEAKED, SKEWED
from guard.training.inspection import NOISY, WEAK

DOCUMENT = Path(__file__).parents[1] / "deploy" / "docs" / "training-data.md"


def guard(*arguments: str) -> Result:
    """Run one command in this process."""
    return CliRunner().invoke(main, ["data", "check", *arguments])


def write(images: ImageSet, folder: Path) -> None:
    """Pictures by class, as PNG."""
    for index, (picture, label) in enumerate(zip(images.images, images.labels, strict=True)):
        path = folder / images.classes[label] / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small set on disk, the working directory around it, and training cut short."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("guard.training.inspection.START", 600)
    write(signs.make(180, seed=1), tmp_path / "pictures" / "train")
    write(signs.make(90, seed=2), tmp_path / "pictures" / "test")
    return tmp_path / "pictures"


@pytest.mark.slow
def test_the_document_s_commands_run(pictures: Path) -> None:
    """Every command of the document runs as written and leaves the files it names."""
    commands = re.findall(r"^\$ guard data check (.*)$", DOCUMENT.read_text(), re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        if "--checkpoint" in command:
            continue  # tests/training/test_inspection.py
        done = guard(*shlex.split(command))
        assert done.exit_code in (0, 1), done.output
    assert Image.open("findings.png").width > 1000
    report = json.loads(Path("findings.json").read_text())
    assert report["pictures"] == {"train": 180, "test": 90}


def test_the_document_s_limits_are_the_code_s() -> None:
    """The thresholds the document names are the ones in force."""
    text = DOCUMENT.read_text()
    for shown in (
        f"{LEAKED:.0%}",
        f"{NOISY:.1%}",
        f"{SKEWED:.0f} times",
        f"{JPEG_SHARE:.0%}",
        f"{WEAK:.0%}",
    ):
        assert shown in text


def test_exit_statuses(pictures: Path) -> None:
    """0 for a good set, 1 when something serious is in it, 2 for misuse, each in plain words."""
    good = guard("pictures", "--no-training", "--json")
    assert good.exit_code == 0
    assert json.loads(good.stdout)["serious"] is False
    assert "duplicates" in good.stderr
    for file in sorted((pictures / "train" / "stop").iterdir())[:2]:
        (pictures / "test" / "stop" / f"copy-{file.name}").write_bytes(file.read_bytes())
    bad = guard("pictures", "--no-training")
    assert bad.exit_code == 1
    assert "leakage" in bad.stdout
    assert "copy-" in bad.stdout
    for wrong in (["nowhere"], ["pictures", "--test-split", "tset"], ["pictures", "--limit", "3"]):
        done = guard(*wrong)
        assert done.exit_code == 2
        assert "Traceback" not in done.output
        assert len(done.stderr.splitlines()) <= 2


def test_poison_in_memory_is_reported_by_row() -> None:
    """A name that is no path: the procedural set, without a file."""
    done = guard("signs", "--limit", "60", "--no-training", "--json")
    assert done.exit_code == 0
    counts = json.loads(done.stdout)["pictures"]
    assert np.array_equal(list(counts.values()), [60, 60])
