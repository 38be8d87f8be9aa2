"""`guard attack`, and deploy/docs/attacks.md command by command."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from guard.cli import main
from guard.data import read, signs
from guard.data.write import read_columns, read_notes, write_parquet
from guard.testing import FakeUpstream, make_pack
from tests.attacks.loopback import served

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "deploy" / "docs" / "attacks.md").read_text()
PACK = ROOT / "models" / "signs"
COMMANDS = re.findall(r"^\$ guard (attack .*)$", DOCUMENT, re.MULTILINE)
FEW = ["--count", "8", "--batch", "8"]  # the last one given counts
HASTE = {  # what a test has no time for, and the document's reader has
    "cw": "--count 3 --steps 4 --option searches=1",
    "autoattack-quick": "--count 2 --steps 4",
    "patch": "--steps 2",
    "hopskipjump": "--count 4 --queries 40",
    "simba": "--count 4 --queries 40",
}


def run(*arguments: object) -> Result:
    """One command in this process."""
    return CliRunner().invoke(main, ["attack", *(str(argument) for argument in arguments)])


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder beside which the shipped packs lie, as in a checkout."""
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_set_of_its_own(here: Path) -> None:
    """Parquet that `read` takes, within the budget, with the recipe inside and a picture beside."""
    arguments = ["signs", "--pack", "models/signs", "--member", "sentinel", "--eps", "8/255"]
    arguments += ["--steps", "5", "--count", "12", "--shard", "8", "--out", "out"]
    done = run(*arguments, "--picture", "p.png", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    files = sorted((here / "out").iterdir())
    assert [file.name for file in files] == [f"test-0000{k}-of-00002.parquet" for k in (0, 1)]
    found, original = read(here / "out", "test"), signs.make(12, seed=1000)
    assert found.classes == signs.CLASSES
    assert np.array_equal(found.labels, original.labels)
    change = np.abs(found.pixels() - original.pixels()).max()
    assert 0 < change <= 8 / 255 + 1e-6
    assert report["images"] == 12
    assert report["accuracy"] < report["clean_accuracy"]
    notes = read_notes(files[1])
    assert (notes["recipe"]["attack"], notes["recipe"]["threat"]) == ("pgd", "linf 8/255")
    assert notes["recipe"]["steps"] == 5
    assert notes["recipe"]["target"]["digest"].startswith("sha256:")
    assert notes["command"] == f"guard attack {shlex.join(arguments)} --picture p.png --json"
    assert Image.open(here / "p.png").width > 6 * 128
    again = run(*arguments, "--json")
    assert again.stderr.count("there already") == 2
    assert json.loads(again.stdout) == report


def test_the_sticker(here: Path) -> None:
    """Even a hasty print turns more STOP signs into speed limits than a grey one, in its square."""
    done = run(
        "signs", "--pack", "models/signs", "--member", "sentinel", "--attack", "patch",
        "--source", "stop", "--targeted", "speed_50", "--count", 24, "--steps", 20,
        "--out", "out", "--picture", "p.png", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["success"] > report["grey_success"] + 0.2
    assert (report["designed_on"], report["held_out"], report["images"]) == (12, 12, 60)
    (file,) = (here / "out").iterdir()
    found, columns = read(file), read_columns(file, ["original_index", "fooled", "answer"])
    original = signs.make(24 * 20, seed=1000).images[columns["original_index"]]
    changed = (found.images != original).any(3)
    assert changed.mean() < 0.2
    speed_50 = found.classes.index("speed_50")
    assert np.array_equal(columns["fooled"], columns["answer"] == speed_50)
    assert {found.classes[label] for label in found.labels} == {"stop"}


def test_a_checkpoint(here: Path) -> None:
    """What `guard train` leaves can be attacked; its classes are compared with the data's."""
    from guard.training.checkpoint import save_classifier
    from guard.training.recipe import Recipe

    recipe = Recipe("plain", 4)
    (here / "trained").mkdir()
    save_classifier(here / "trained", recipe.network(18), recipe, classes=18, about={})
    options = ["--checkpoint", "trained", "--attack", "fgsm", "--eps", "8/255", *FEW]
    done = run("signs", *options, "--out", "out")
    assert done.exit_code == 0, done.output
    recipe_ = read_notes(next((here / "out").iterdir()))["recipe"]
    assert recipe_["target"]["name"] == "trained"
    grey = signs.make(4, seed=1)
    write_parquet(
        here / "grey.parquet", type(grey)(grey.images[..., :1], grey.labels, grey.classes)
    )
    done = run("grey.parquet", *options, "--out", "other")
    assert (done.exit_code, done.stderr) == (
        1, "guard: trained does not take pictures of 1x32x32\n",
    )  # fmt: skip


def test_a_live_gateway_blocks_and_counts(here: Path, tmp_path: Path) -> None:
    """Against a gateway: labels alone, the budget kept, the counts told."""
    pack = make_pack(tmp_path / "tiny")
    some = signs.make(3, seed=2)
    tiny = type(some)(some.images[:, 8:16, 8:16], np.arange(3), ("red", "green", "blue"))
    write_parquet(here / "tiny.parquet", tiny)
    with served(FakeUpstream(), pack, mode="enforce", on_flag="block") as address:
        done = run(
            "tiny.parquet", "--live", address, "--model", "tiny", "--output", "label",
            "--attack", "hopskipjump", "--budget", 90, "--out", "out", "--json",
        )  # fmt: skip
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert 0 < report["asked"] <= 90
    assert report["images"] == 3
    assert report["blocked"] + report["flagged"] + report["refused"] <= report["asked"]
    assert report["queries_per_image"] * 3 == pytest.approx(report["asked"])


WRONG = {
    "nobody": (["signs", "--out", "o"], 2, "--pack, --checkpoint and --live"),
    "path": (["none", "--pack", PACK, "--eps", "8/255"], 1, "none: no such file"),
    "pack": (["signs", "--pack", "none", "--eps", "8/255"], 1, "none"),
    "attack": (["signs", "--pack", PACK, "--attack", "pgdd"], 1, "no attack 'pgdd'; there are"),
    "norm": (
        ["signs", "--pack", PACK, "--attack", "fgsm", "--norm", "l2", "--eps", "1"],
        1, "fgsm is an attack in linf",
    ),
    "patch norm": (
        ["signs", "--pack", PACK, "--attack", "patch", "--norm", "linf"],
        1, "patch is an attack in patch, not linf",
    ),
    "eps": (["signs", "--pack", PACK, "--eps", "eight"], 1, "'linf eight'"),
    "no eps": (["signs", "--pack", PACK], 1, "pgd needs a threat model"),
    "option": (["signs", "--pack", PACK, "--eps", "8/255", "-o", "stps=3"], 1, "its options:"),
    "classes": (
        ["signs", "--pack", ROOT / "models/gtsrb", "--eps", "8/255"],
        1, "the data has 18 classes, gtsrb, wide answers with 43",
    ),
    "class": (["signs", "--pack", PACK, "--eps", "8/255", "--targeted", "stopp"], 1, "'stopp'"),
    "model": (["signs", "--live", "127.0.0.1:1"], 2, "--live needs --model"),
    "server": (["signs", "--live", "127.0.0.1:1", "--model", "m"], 1, "no server answers"),
    "checkpoint": (["signs", "--checkpoint", "none"], 1, "holds no finished classifier"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "status", "text"), WRONG.values(), ids=WRONG)
def test_mistakes_are_one_line(here: Path, arguments: list[str], status: int, text: str) -> None:
    """Each says what is wrong, without a traceback, and writes nothing."""
    done = run(*arguments, "--count", 4, *([] if "--out" in arguments else ["--out", "out"]))
    assert done.exit_code == status
    assert text in done.stderr
    assert done.stderr.startswith("guard: ")
    assert len(done.stderr.splitlines()) == 1
    assert not (here / "out").exists()


@pytest.mark.parametrize("number", range(len(COMMANDS)))
def test_the_document(here: Path, number: int) -> None:
    """Every command in the document runs as it stands there, on fewer pictures in fewer steps."""
    words = [*shlex.split(COMMANDS[number])[1:], *FEW]
    for name, haste in HASTE.items():
        words += haste.split() if name in words else []
    if "--adaptive" in words:
        words += ["--count", "2", "--steps", "2", "--option", "weights=1"]
    if "--live" in words:
        with served(None, PACK, name="signs") as address:
            words[words.index("--live") + 1] = address
            done = run(*words)
    else:
        done = run(*words)
    assert done.exit_code == 0, done.output
    assert len(read(here / words[words.index("--out") + 1])) >= 2
    if "--adaptive" in words:
        assert "there already" in run(*words).stderr


def test_the_example_reads_what_was_written(here: Path) -> None:
    """The document's Python prints the recipe of the first set."""
    assert run(*shlex.split(COMMANDS[0])[1:], *FEW, "--steps", "1").exit_code == 0
    code = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)[0]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.split() == ["8", "pgd", "linf", "8/255", "signs,", "wide"], done.stderr
