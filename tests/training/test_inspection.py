"""Poison that was planted is found, and pictures that are in order are left in peace."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch

from guard.data import ImageSet, signs
from guard.data.scan import scan_images
from guard.errors import InputError
from guard.training import checkpoint
from guard.training.inspection import SCOUT, Inspection, inspect, judged, planted, scout
from guard.training.triggers import lay, lift, pattern
from tests.training import poison

TARGET = 4
COUNT = 1000


def clean(seed: int) -> ImageSet:
    """Easy signs, so that a quickly trained classifier knows them."""
    return signs.make(COUNT, seed=100 + seed, difficulty=0.5)


def hits(found: Iterable[int], truth: Iterable[int]) -> tuple[float, float]:
    """Recall and precision."""
    ours, theirs = set(map(int, found)), set(map(int, truth))
    return len(ours & theirs) / len(theirs), len(ours & theirs) / max(len(ours), 1)


@pytest.mark.parametrize(("seed", "kind", "share"), [(0, "badnets", 0.02), (1, "blended", 0.05)])
def test_poison_is_found(seed: int, kind: str, share: float) -> None:
    """A trigger and 5% flipped labels in one set: the class the trigger leads to is named and no
    other, and both lists hold the planted pictures."""
    rng = np.random.default_rng(seed)
    images, stuck = getattr(poison, kind)(clean(seed), share, TARGET + seed, rng)
    images, flipped = poison.flip(images, 0.05, rng)
    found = inspect(scan_images(images, "train"), None, Inspection(seed=seed))
    assert [one.check for one in found] == ["trigger", "labels"]
    assert {one.level for one in found} == {"serious"}
    trigger, labels = found
    assert trigger.figures["class"] == signs.CLASSES[TARGET + seed]
    recall, precision = hits((item.row for item in trigger.items), stuck)
    assert recall >= 0.8
    assert precision >= 0.95
    recall, precision = hits((item.row for item in labels.items), np.setdiff1d(flipped, stuck))
    assert recall >= 0.7
    assert precision >= 0.7


def test_clean_signs_are_left_in_peace() -> None:
    """No class is accused of a trigger, and no share of labels is serious."""
    found = inspect(scan_images(clean(2), "train"), None, Inspection(quick=True, seed=2))
    assert [one.check for one in found] == ["labels"]
    assert found[0].level != "serious"


def test_a_checkpoint_is_searched_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a finished classifier's folder nothing is trained for the search; one of other classes
    or for other pictures is refused in one line."""
    monkeypatch.setattr("guard.training.inspection.START", 1000)
    images = signs.make(360, seed=8)
    network = scout(images, Inspection(quick=True))
    checkpoint.save_classifier(tmp_path, network, SCOUT, classes=len(images.classes), about={})
    lines: list[str] = []
    planted(images, Inspection(checkpoint=tmp_path, log=lines.append))
    assert lines
    assert not any("training" in line for line in lines)
    some = images.subset(images.labels < 5)
    fewer = ImageSet(some.images, some.labels, images.classes[:5])
    with pytest.raises(InputError, match="18 classes, the pictures have 5"):
        planted(fewer, Inspection(checkpoint=tmp_path))
    grey = ImageSet(images.images[:, :, :, :1], images.labels, images.classes)
    with pytest.raises(InputError, match="does not take pictures of"):
        planted(grey, Inspection(checkpoint=tmp_path))


def test_no_picture_is_judged_by_a_classifier_that_saw_its_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Frames of one track stay on one side, and every picture is judged exactly once."""
    from guard.training import inspection

    made = signs.make(216, seed=5)
    groups = np.arange(216) // 18 * 100 + made.labels // 2
    images = ImageSet(made.images, made.labels, made.classes, groups.astype(np.int64))
    seen: list[set[int]] = []
    asked: list[int] = []

    def spy_scout(part: ImageSet, _how: Inspection) -> None:
        assert part.groups is not None
        seen.append(set(part.groups.tolist()))

    def spy_answers(_network: None, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        asked.append(len(pixels))
        return np.full((len(pixels), 18), 1 / 18, np.float32), np.zeros((len(pixels), 2))

    monkeypatch.setattr(inspection, "scout", spy_scout)
    monkeypatch.setattr(inspection, "answers", spy_answers)
    probabilities, _ = judged(images, None, Inspection())
    assert not seen[0] & seen[1]
    assert sum(asked) == len(images)
    assert np.allclose(probabilities.sum(1), 1)


def test_a_pattern_is_read_laid_and_lifted() -> None:
    """A sticker's pixels are read off the pictures that carry it; lifting undoes laying."""
    images = signs.make(400, seed=6, difficulty=0.5)
    rng = np.random.default_rng(0)
    stuck, chosen = poison.badnets(images, 0.3, TARGET, rng)
    over = pattern(stuck.images[chosen], images.images)
    laid = lay(over, images.images[:50])
    assert (
        np.abs(laid[:, -4:-1, -4:-1].astype(int) - stuck.images[chosen[0], -4:-1, -4:-1]).max() < 2
    )
    away = np.abs(laid[:, :-4, :-4].astype(int) - images.images[:50, :-4, :-4])
    assert away.mean() < 8
    shone, chosen = poison.blended(images, 0.3, TARGET, rng)
    over = pattern(shone.images[chosen], images.images)
    bare = lift(over, shone.images[chosen], images.images.mean(0))
    before = np.abs(shone.images[chosen].astype(int) - images.images[chosen]).mean()
    assert np.abs(bare.astype(int) - images.images[chosen]).mean() < before / 2


def test_the_same_seed_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two looks with one seed give the same probabilities."""
    from guard.training import inspection

    monkeypatch.setattr(inspection, "START", 1000)
    images = signs.make(120, seed=7)
    torch.manual_seed(1)
    first, _ = judged(images, None, Inspection(quick=True))
    torch.manual_seed(2)
    second, _ = judged(images, None, Inspection(quick=True))
    assert np.array_equal(first, second)
