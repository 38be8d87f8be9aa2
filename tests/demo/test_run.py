"""The demo as a whole: what it refuses, what it leaves behind, and one run from end to end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import guard
from guard.demo import stage
from guard.demo.production import RECIPE
from guard.demo.run import Options, demo, find_pack
from guard.errors import GuardError, PackError
from guard.networks import fuse
from guard.testing import make_pack

SOURCE = Path(guard.__file__).parents[1]
ATTACKS = ("FGSM", "PGD", "PGD", "sticker")


def left_running(folder: Path) -> list[str]:
    """Command lines of processes that work in this folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # gone meanwhile
    return [line for line in lines if str(folder) in line and "guard." in line]


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary folders are made; nothing may be left in it, and nobody at work there."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield folder
    assert list(folder.glob("guard-demo-*")) == []
    assert left_running(folder) == []


def start(*arguments: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    """`guard demo` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "guard.cli", "demo", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(SOURCE), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def counted(record: dict[str, Any], decision: str) -> float:
    """One decision's counter as scraped."""
    series = f'guard_verdicts_total{{decision="{decision}",model="signs"}}'
    return float(record["metrics"].get(series, 0))


def test_the_pack_is_found_here_then_beside_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """models/signs of the current folder comes first; a missing pack is one plain line."""
    monkeypatch.chdir(tmp_path)
    make_pack(tmp_path / "models" / "signs")
    assert find_pack(None).resolve() == tmp_path / "models" / "signs"
    assert find_pack(tmp_path / "models" / "signs") == tmp_path / "models" / "signs"
    with pytest.raises(PackError, match=r"no pack at .*nowhere: name one with --pack"):
        find_pack(tmp_path / "nowhere")


def test_a_file_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    """Not after two minutes."""
    with pytest.raises(GuardError, match="cannot write"):
        demo(Options(picture=tmp_path / "missing" / "demo.png"), say=print)
    with pytest.raises(GuardError, match="cannot write"):
        demo(Options(picture=tmp_path / "a.png", json=tmp_path), say=print)


def test_a_pack_of_something_else_is_refused(tmp_path: Path) -> None:
    """The tiny pack knows three colours and no signs."""
    options = Options(picture=tmp_path / "a.png", pack=make_pack(tmp_path / "tiny"))
    with pytest.raises(GuardError, match="not a pack of the 32x32 procedural signs"):
        demo(options, say=print)


def test_without_torch_it_says_what_to_install(tmp_path: Path) -> None:
    """One line and exit status 1 where only the serving install is there."""
    make_pack(tmp_path / "models" / "signs")
    missing = "raise ModuleNotFoundError('no torch', name='torch')\n"
    (tmp_path / "torch.py").write_text(missing)
    path = os.pathsep.join([str(tmp_path), str(SOURCE)])
    process = start(cwd=tmp_path, PYTHONPATH=path)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error.strip().splitlines() == [
        "guard: the demo trains a classifier and needs torch: pip install 'guard[train]'"
    ]


def test_its_pictures_are_nobody_elses() -> None:
    """Production, its seeds and its architecture are not those of any pack's recipe."""
    from guard.training.recipes import RECIPES

    used = [one for recipe in RECIPES.values() for one in recipe.classifiers().values()]
    assert RECIPE.seed not in {one.seed for one in used}
    assert RECIPE.arguments(18) not in [one.arguments(18) for one in used]
    assert stage.FIRST_SEED > 100_000


def test_an_interrupt_stops_both_servers(
    signs_pack: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while everything is up: no process and no file is left."""

    def untrained(pictures: Any, **_options: Any) -> Any:
        return fuse(RECIPE.network(len(pictures.classes)))

    monkeypatch.setattr(stage, "train_production", untrained)
    effort = stage.Effort(train=36, calibrate=200, fresh=18)
    with (
        pytest.raises(KeyboardInterrupt),
        stage.set_up(signs_pack, effort, seed=0, say=lambda _line: None) as scene,
    ):
        assert len(left_running(scratch)) == 2
        assert scene.gateway.ready("signs")
        raise KeyboardInterrupt


def test_a_terminated_demo_leaves_nothing(signs_pack: Path, scratch: Path, tmp_path: Path) -> None:
    """SIGTERM is an orderly end: no traceback, no temporary folder."""
    process = start("--quick", "--pack", str(signs_pack), cwd=tmp_path)
    assert process.stdout is not None
    assert "[1/4]" in process.stdout.readline()
    assert list(scratch.glob("guard-demo-*"))
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "Traceback" not in error


@pytest.mark.slow
def test_the_demo_from_end_to_end(signs_pack: Path, scratch: Path, tmp_path: Path) -> None:
    """It exits by itself, and table, JSON, picture and metrics tell one story; no proxy is used."""
    arguments = ("--quick", "--pack", str(signs_pack), "--json", "demo.json")
    process = start(*arguments, cwd=tmp_path, http_proxy="http://127.0.0.1:9")
    output, error = process.communicate(timeout=180)
    assert process.returncode == 0, error
    record = json.loads((tmp_path / "demo.json").read_text())
    clean, *attacks = record["rows"]
    assert clean["name"] == "clean signs"
    assert [row["name"].split("-")[0].split()[0].rstrip(",") for row in attacks] == list(ATTACKS)
    assert all(f"{row['name']}  " in output for row in record["rows"])
    for row in attacks:
        assert row["guarded_success"] <= row["unguarded_success"]
        assert row["unguarded_success"] + row["unguarded_accuracy"] == pytest.approx(1)
    blocked = sum(round(row["alarms"] * row["count"]) for row in record["rows"])
    assert counted(record, "BLOCK") == blocked
    assert counted(record, "ALLOW") == sum(row["count"] for row in record["rows"]) - blocked
    assert record["latency"]["direct_ms"] > 0
    with Image.open(tmp_path / "guard-demo.png") as picture:
        assert picture.width > 800
        assert picture.height > 5 * 32 * 4
