"""States on disk: whole or not at all."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from guard.errors import InputError
from guard.training import checkpoint
from guard.training.classifier import load_classifier, train
from tests.training.toys import NATURAL, colours, equal, taught

SHORT = replace(NATURAL, epochs=2)


class Killed(BaseException):
    """What a test raises where a process would have died."""


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    """Tensors bit for bit, whatever their order in memory, and the description."""
    tensors = {
        "a": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "b": torch.arange(3, dtype=torch.uint8),
    }
    tensors["same"] = tensors["a"]
    checkpoint.save(tmp_path / "x" / "c.safetensors", tensors, {"best": [0.5, 1], "sum": 0.1})
    found, about = checkpoint.load(tmp_path / "x" / "c.safetensors")
    assert all(torch.equal(found[name], value) for name, value in tensors.items())
    assert about == {"best": [0.5, 1], "sum": 0.1}


def test_a_kill_before_the_rename_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new file is written beside the old one; until the rename the old one stands."""
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, {"a": torch.zeros(3)}, {"at": 1})

    def die(_descriptor: int) -> None:
        raise Killed

    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(Killed):
        checkpoint.save(path, {"a": torch.ones(3)}, {"at": 2})
    assert checkpoint.load(path)[1] == {"at": 1}
    monkeypatch.undo()
    checkpoint.save(path, {"a": torch.ones(3)}, {"at": 3})
    assert checkpoint.load(path)[1] == {"at": 3}


def shortened(path: Path) -> None:
    """The end is missing."""
    path.write_bytes(path.read_bytes()[:-100])


def garbled(path: Path) -> None:
    """Something else altogether."""
    path.write_bytes(b"\x93NUMPY" * 50)


def foreign(path: Path) -> None:
    """Tensors of somebody else's."""
    save_file({"a": torch.zeros(2)}, path)


def emptied(path: Path) -> None:
    """Nothing at all."""
    path.write_bytes(b"")


def halved(path: Path) -> None:
    """A whole file that lacks what a training needs."""
    tensors, about = checkpoint.load(path)
    kept = {name: value for name, value in tensors.items() if not name.startswith("average")}
    checkpoint.save(path, kept, about)


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """The folder of a training whose second epoch is still to come."""

    def stop(line: str) -> None:
        if line.startswith("epoch 2"):
            raise Killed

    with pytest.raises(Killed):
        train(SHORT, colours(48, 0), colours(30, 1), 3, folder=tmp_path, log=stop)
    return tmp_path


@pytest.mark.parametrize("damage", [shortened, garbled, foreign, emptied, halved])
def test_a_damaged_checkpoint_is_named_in_one_line(
    stopped: Path, damage: Callable[[Path], None]
) -> None:
    """The error says which file it is and what to do, and the file is left alone."""
    path = stopped / checkpoint.STATE
    damage(path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="delete it") as caught:
        train(SHORT, colours(48, 0), colours(30, 1), 3, folder=stopped)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"recipe": replace(SHORT, seed=9)}, "another recipe"),
        ({"pictures": colours(49, 0)}, "other pictures"),
        ({"pictures": colours(48, 3)}, "other pictures"),
        ({"classes": 4}, "other pictures"),
    ],
)
def test_a_strangers_checkpoint_is_refused(
    stopped: Path, changed: dict[str, Any], text: str
) -> None:
    """Training goes on only with the recipe, the pictures and the classes it began with."""
    given = {"recipe": SHORT, "pictures": colours(48, 0), "holdout": colours(30, 1), "classes": 3}
    before = (stopped / checkpoint.STATE).read_bytes()
    with pytest.raises(InputError, match=text):
        train(**(given | changed), folder=stopped)
    assert (stopped / checkpoint.STATE).read_bytes() == before


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """Where a file stands in the way the error says which path it is."""
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InputError, match=r"taken.* cannot be written"):
        train(SHORT, colours(48, 0), colours(30, 1), 3, folder=tmp_path / "taken")


def test_a_finished_classifier_comes_back(tmp_path: Path) -> None:
    """Recipe and weights from the folder give the network that was trained."""
    network = taught(SHORT)
    checkpoint.save_classifier(tmp_path, network, SHORT, classes=3, about={"pictures": 48})
    assert equal(load_classifier(tmp_path), network)


@pytest.mark.parametrize("name", [checkpoint.WEIGHTS, checkpoint.RECIPE])
def test_half_a_classifier_is_none(tmp_path: Path, name: str) -> None:
    """Without its weights or its recipe there is nothing to load."""
    network = NATURAL.network(3)
    checkpoint.save_classifier(tmp_path, network, NATURAL, classes=3, about={})
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match="holds no finished classifier"):
        load_classifier(tmp_path)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    """Weights and recipe that do not belong together are an error of one line."""
    wide = replace(NATURAL, width=8)
    checkpoint.save_classifier(tmp_path, wide.network(3), NATURAL, classes=3, about={})
    with pytest.raises(InputError, match="do not belong together"):
        load_classifier(tmp_path)
