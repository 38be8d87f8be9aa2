"""Adversarial sets: what is written is what was measured, and a stopped run goes on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from guard.attacks.blackbox import NO_ANSWER
from guard.data import ImageSet, read, signs
from guard.data.write import read_columns, read_notes
from guard.errors import ConfigError
from guard.evaluation.adversarial import Order, craft, settle, summary
from guard.evaluation.commission import Asked, commission, parsed
from guard.evaluation.sheet import Pair, sheet
from guard.evaluation.victim import Victim
from guard.threat import LINF_8, ThreatModel

PICTURES = signs.make(20, seed=5)


def bright(images: Tensor) -> Tensor:
    """Labels: the whole brightness in eighths; darkness is not answered."""
    level = (images.mean((1, 2, 3)) * 8).long()
    return torch.where(level == 0, NO_ANSWER, level)


def lighter(images: Tensor, _y: Tensor, _t: Tensor | None, generator: torch.Generator) -> Tensor:
    """An attack: brighter by a random amount within 8/255."""
    amount = torch.rand((len(images), 1, 1, 1), generator=generator)
    return (images + amount * 8 / 255).clamp(0, 1)


VICTIM = Victim("brightness", "sha256:0", bright, gives="labels")
BEFORE = bright(torch.from_numpy(PICTURES.pixels())).numpy()
KNOWN = ImageSet(PICTURES.images, np.maximum(BEFORE, 0), PICTURES.classes)


def order(**changes: Any) -> Order:
    """Twenty pictures in shards of eight, batches of three."""
    plain = Order(
        KNOWN, np.arange(20) * 2, lighter, {"eps": 8}, threat=LINF_8, shard=8, batch=3, command="x"
    )  # fmt: skip
    return replace(plain, **changes)


def test_what_is_written_is_what_was_measured(tmp_path: Path) -> None:
    """Norms, answers and flags agree with the pictures read back, row by row."""
    craft(order(), VICTIM, tmp_path)
    files = [file for file, _ in order().files(tmp_path)]
    assert sorted(tmp_path.iterdir()) == files
    found = read(tmp_path)
    names = ["original_index", "l2", "linf", "fooled", "answer", "original_answer"]
    parts = [read_columns(file, names) for file in files]
    rows = {name: np.concatenate([part[name] for part in parts]) for name in names}
    change = (found.pixels() - KNOWN.pixels()).reshape(20, -1)
    assert np.array_equal(found.labels, KNOWN.labels)
    assert np.array_equal(rows["original_index"], np.arange(20) * 2)
    assert np.allclose(rows["linf"], np.abs(change).max(1), atol=1e-6)
    assert np.allclose(rows["l2"], np.linalg.norm(change, axis=1), atol=1e-4)
    assert rows["linf"].max() <= 8 / 255 + 1e-6
    answer = bright(torch.from_numpy(found.pixels())).numpy()
    assert np.array_equal(rows["answer"], answer)
    assert np.array_equal(rows["original_answer"], BEFORE)
    assert np.array_equal(rows["fooled"], (answer != KNOWN.labels) & (answer != NO_ANSWER))
    report = summary(order(), tmp_path)
    assert report["images"] == 20
    assert report["accuracy"] == pytest.approx((answer == KNOWN.labels).mean())
    right = rows["original_answer"] == KNOWN.labels
    won = rows["fooled"] & right
    assert won.any()
    assert report["success"] == pytest.approx(won.sum() / right.sum())
    assert read_notes(files[0]) == {"recipe": {"eps": 8}, "command": "x"}


def test_a_stopped_run_goes_on(tmp_path: Path) -> None:
    """Killed in the second shard, the next run writes the rest, and the set is the same."""
    calls = []

    def failing(*arguments: Any) -> Tensor:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return lighter(*arguments)

    with pytest.raises(KeyboardInterrupt):
        craft(order(attack=failing), VICTIM, tmp_path / "stopped")
    assert len(list((tmp_path / "stopped").glob("*.parquet"))) == 1
    said: list[str] = []
    craft(order(), VICTIM, tmp_path / "stopped", log=said.append)
    craft(order(), VICTIM, tmp_path / "whole")
    assert "there already" in said[0]
    one, other = read(tmp_path / "stopped"), read(tmp_path / "whole")
    assert np.array_equal(one.images, other.images)


@pytest.mark.parametrize("changes", [{"recipe": {"eps": 4}}, {"shard": 10}])
def test_a_folder_of_another_set_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Shards of another recipe or another division are never mixed in."""
    craft(order(), VICTIM, tmp_path)
    with pytest.raises(ConfigError, match="another set"):
        craft(order(**changes), VICTIM, tmp_path)


@pytest.mark.parametrize("threat", ["linf 0.03", "linf 8/255", "l2 0.7"])
def test_rounding_does_not_leave_the_budget(threat: str) -> None:
    """Pictures of 8 bits lie inside the ball that the attack kept to, also where 1/255 does not."""
    model = ThreatModel.parse(threat)
    images = torch.from_numpy(PICTURES.pixels())
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    if model.norm == "l2":
        change = noise / noise.flatten(1).norm(dim=1)[:, None, None, None] * model.eps
    else:
        change = noise.sign() * model.eps
    found = (images + change).clamp(0, 1)
    rounded = settle(found, images, model)
    assert torch.allclose(rounded * 255, (rounded * 255).round(), atol=1e-4)
    size = (rounded - images).flatten(1).norm(p=2 if model.norm == "l2" else torch.inf, dim=1)
    assert (size <= model.eps + 1e-5).all()
    assert (rounded - found).abs().max() <= 1 / 255 + 1e-6


@pytest.mark.parametrize("wanted", ["stop", "0", "random"])
def test_a_wanted_class_is_not_attacked_towards_itself(wanted: str) -> None:
    """Targeted pictures are of other classes; random targets never are the label."""
    images = signs.make(90, seed=1)
    asked = Asked(name="pgd", eps="8/255", targeted=wanted, device="cpu", count=50)
    victim = Victim("any", "", lambda points: torch.zeros(len(points), 18))
    job = commission(victim, images, "signs", asked, live=False, log=print)
    assert job.order.targets is not None
    assert len(job.order.images) == 50
    assert (job.order.targets != job.order.images.labels).all()
    assert (len(np.unique(job.order.targets)) > 5) == (wanted == "random")


def test_options_are_read_as_what_they_are() -> None:
    """Numbers, truth values, lists and words."""
    words = ["a=1", "b=0.5", "c=true", "d=x", "e-f=1,2.5", "g=none"]
    wanted = {"a": 1, "b": 0.5, "c": True, "d": "x", "e_f": (1, 2.5), "g": None}
    assert parsed(words) == wanted
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        parsed(["steps"])


def test_the_sheet_shows_every_pair() -> None:
    """One column each; where nothing changed the difference is grey, elsewhere it is not."""
    one, other = PICTURES.images[0], PICTURES.images[0].copy()
    other[0, 0] = 255 - other[0, 0]
    page = np.asarray(sheet([Pair(one, one, "a", "a", False)] * 4, title="none"))
    drawn = np.asarray(sheet([Pair(one, other, "a", "b", True)] * 4, title="none"))
    assert page.shape == drawn.shape
    assert page.shape[1] >= 4 * 128
    assert (page == 128).all(2).sum() >= 4 * 128 * 128
    assert (drawn == 128).all(2).sum() < (page == 128).all(2).sum()
