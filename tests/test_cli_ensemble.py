"""`guard train ensemble` and `guard evaluate transfer` on a small folder of pictures."""

import json
from dataclasses import replace
from pathlib import Path

from click.testing import CliRunner
from PIL import Image

from guard.cli import main
from guard.training import checkpoint
from tests.training.toys import NATURAL, colours

RECIPE = replace(NATURAL, architecture="broad", attacks={"nfgsm": 1.0}, eps=0.06, warm=0.0)


def run(*arguments: object) -> tuple[int, str, str]:
    """Exit status, what was printed, and the notes."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def folders(root: Path, count: int) -> Path:
    """Toy pictures as PNG files, a folder for each class."""
    toys = colours(count, 0)
    for number, (image, label) in enumerate(zip(toys.images, toys.labels, strict=True)):
        folder = root / ["red", "green", "blue"][int(label)]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number:05}.png")
    return root


def pictures(root: Path) -> Path:
    """A set with a train and a test split."""
    folders(root / "test", 320)
    return folders(root / "train", 160).parent


def member(folder: Path, classes: int = 3, seed: int = 0) -> Path:
    """An untrained but finished member."""
    recipe = replace(RECIPE, seed=seed)
    checkpoint.save_classifier(folder, recipe.network(classes), recipe, classes=classes, about={})
    return folder


def test_members_learn_together_and_are_held_against_each_other(tmp_path: Path) -> None:
    """From a folder of pictures to two finished members, their matrix and its picture."""
    data = pictures(tmp_path / "data")
    alone = [member(tmp_path / "alone" / f"m{n}", seed=n) for n in range(2)]
    named = [word for folder in alone for word in ("--members", folder)]
    together = tmp_path / "together"
    order = ("train", "ensemble", data, *named, "--diversity", "gal", "--epochs", 1)
    status, out, notes = run(*order, "--set", "batch=64", "--out", together)
    assert status == 0, notes
    assert out.split() == [str(together / "m0"), str(together / "m1")]
    assert "epoch 1/1: loss" in notes
    picture = tmp_path / "heat.png"
    asked = ("--data", data, "--count", 60, "--attack", "pgd-5", "--json")
    status, out, notes = run(
        "evaluate", "transfer", together / "m0", together / "m1", *asked, "--picture", picture
    )
    assert status == 0, notes
    assert set(json.loads(out)["source_then_target"]) == {"m0", "m1", "ensemble"}
    assert Image.open(picture).size[0] > 200


def test_members_of_other_classes_end_in_one_line(tmp_path: Path) -> None:
    """Exit status 1 and the member's name."""
    data = pictures(tmp_path / "data")
    pair = [member(tmp_path / "a"), member(tmp_path / "b", classes=5)]
    named = [word for folder in pair for word in ("--members", folder)]
    status, _, notes = run("train", "ensemble", data, *named, "--out", tmp_path / "out")
    assert status == 1
    assert notes.splitlines()[-1] == "guard: b has 5 classes and the pictures 3"
