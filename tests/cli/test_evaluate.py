"""`guard evaluate classifiers`, as its user runs it."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, in the checkout."""
    return subprocess.run(
        [sys.executable, "-m", "guard.cli", "evaluate", "classifiers", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_packs_members_and_their_mean(tmp_path: Path) -> None:
    """A pack gives a row per robust member and one for their mean; finished cells are kept."""
    kept = tmp_path / "cells.json"
    asked = ("models/signs", "--data", "signs", "--limit", "300", "--count", "20", "--ensemble")
    done = run(*asked, "--columns", "fgsm", "--kept", str(kept), "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert set(rows) == {"signs wide", "signs broad", "signs slim", "ensemble"}
    for row in rows.values():
        clean, attacked = row["clean"], row["fgsm linf 8/255"]
        assert clean[3] == 300
        assert attacked[3] == 20
        assert attacked[0] <= clean[0] <= 1
    assert len(json.loads(kept.read_text())) == 8


def test_what_is_no_classifier_is_named() -> None:
    """One line, exit status 1."""
    done = run("tests", "--data", "signs", "--limit", "20")
    assert done.returncode == 1
    assert done.stderr == "guard: tests holds no finished classifier\n"


def test_an_unknown_column_is_named() -> None:
    """One line that lists the columns."""
    done = run("models/signs", "--data", "signs", "--limit", "20", "--columns", "magic")
    assert done.returncode == 1
    assert done.stderr.startswith("guard: no column 'magic'; there are clean, fgsm")
