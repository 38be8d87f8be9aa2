"""`guard evaluate gate`."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from guard import calibration, rows
from guard.calibration import Calibration
from guard.cli import main
from guard.pack import Pack, sign_pack, write_manifest
from guard.rows import joined

SIGNS = Path(__file__).parents[2] / "models" / "signs"


def run(*arguments: object) -> tuple[int, str, str]:
    """Exit status, output and error stream."""
    words = ["evaluate", "gate", *map(str, arguments)]
    result = CliRunner().invoke(main, words)
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def nervous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A candidate of the signs whose thresholds are too low; signed, because nobody looked."""
    folder = tmp_path_factory.mktemp("packs") / "signs-r1"
    shutil.copytree(SIGNS, folder)
    entries = calibration.load(folder / "calibration.npz")
    low = {head: Calibration(e.names, e.scores - np.float32(3)) for head, e in entries.items()}
    (folder / "calibration.npz").write_bytes(calibration.dump(low))
    manifest = Pack.load(SIGNS).manifest
    write_manifest(folder, {**manifest, "name": "signs-r1", "serial": 1})
    sign_pack(folder)
    return folder


def test_an_equal_candidate_exits_0(tmp_path: Path) -> None:
    """The card's tables on the output, the page in a file."""
    status, text, _ = run(SIGNS, "--against", SIGNS, "--out", tmp_path / "gate.html")
    assert status == 0
    assert "Passed: none of" in text
    assert (tmp_path / "gate.html").read_text().startswith("<!doctype html>")


def test_a_worse_candidate_exits_1_and_names_the_rows(nervous: Path) -> None:
    """Reasons on the error stream, the whole record as JSON."""
    status, text, said = run(nervous, "--against", SIGNS, "--json")
    assert status == 1
    record = json.loads(text)
    assert not record["passed"]
    assert record["against"] == Pack.load(SIGNS).digest
    assert "refused: clean, false alarms at 5%" in said


def test_a_candidate_nobody_signed_needs_a_word(nervous: Path, tmp_path: Path) -> None:
    """Without --unsigned its files are not looked at; with it they are judged."""
    folder = tmp_path / "signs-r1.refused"
    shutil.copytree(nervous, folder)
    (folder / "model.sig").unlink()
    status, text, said = run(folder, "--against", SIGNS)
    assert (status, text) == (1, "")
    assert "guard: " in said
    status, text, _ = run(folder, "--against", SIGNS, "--unsigned")
    assert status == 1
    assert "**refused**" in text


def test_reviewed_rows_are_read_from_a_file(tmp_path: Path) -> None:
    """A file of rows adds its section; another file is one plain line."""
    held = rows.load(SIGNS / rows.FILE)["holdout"]
    some = joined([held.only("clean"), held.only("CW L2")])
    (tmp_path / "kept.npz").write_bytes(rows.dump({"reviewed": some}))
    status, text, _ = run(SIGNS, "--against", SIGNS, "--reviewed", tmp_path / "kept.npz")
    assert status == 0
    assert "| reviewed suspects: TPR or false alarms |" in text
    status, _, said = run(SIGNS, "--against", SIGNS, "--reviewed", SIGNS / rows.FILE)
    assert status == 1
    assert "holds no table 'reviewed'" in said


def test_pictures_and_victim_belong_together() -> None:
    """One without the other is misuse."""
    status, _, said = run(SIGNS, "--against", SIGNS, "--data", "signs")
    assert status == 2
    assert "--data and --victim belong together" in said
