"""Changes that leave the class alone."""

import pytest
import torch
from torch import Tensor

from guard.training.augment import Augment, cutmix
from guard.training.dice import Dice
from guard.training.losses import shares

EVERYTHING = Augment(15, 0.2, 0.1, 0.4, 0.4, 0.1, flip=True, crop=3, erase=0.5)


def images(count: int = 12, size: int = 8) -> Tensor:
    """Random pictures (N, 3, H, W), no two pixels alike."""
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def only(**options: float | bool) -> Augment:
    """One change alone."""
    return Augment(**options)  # type: ignore[arg-type]


def test_augmented_pictures_are_pictures() -> None:
    """Shape and range are kept by everything at once."""
    changed = EVERYTHING(images(), Dice(0))
    assert changed.shape == images().shape
    assert 0 <= changed.min() <= changed.max() <= 1
    assert not torch.equal(changed, images())


def test_without_options_nothing_happens() -> None:
    """Not even interpolation, and no number is drawn."""
    dice = Dice(0)
    before = dice.generator.get_state()
    assert torch.equal(Augment()(images(), dice), images())
    assert dice.generator.get_state().equal(before)


@pytest.mark.parametrize(
    "option",
    [{"rotation": 9.0}, {"zoom": 0.2}, {"shift": 0.2}, {"light": 0.3}, {"colour": 0.5},
     {"noise": 0.1}, {"flip": True}, {"crop": 2}, {"erase": 0.5}],
)  # fmt: skip
def test_each_option_changes_pictures_each_in_its_own_way(option: dict[str, float]) -> None:
    """Copies of one picture come out different from each other."""
    copies = images(1).expand(16, -1, -1, -1)
    changed = only(**option)(copies, Dice(0))
    assert len({one.numpy().tobytes() for one in changed}) > 1


def test_a_flip_mirrors_about_every_other_picture() -> None:
    """Each picture is itself or its mirror image."""
    before = images(400, 4)
    after = only(flip=True)(before, Dice(0))
    same = (after == before).flatten(1).all(1)
    mirrored = (after == before.flip(3)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 0.4 < mirrored.float().mean() < 0.6


def test_a_crop_moves_by_whole_pixels() -> None:
    """Each picture is found again, moved by up to the reach each way, with black behind it."""
    before, reach = images(60), 2
    after = only(crop=reach)(before, Dice(0))
    padded = torch.nn.functional.pad(before, (reach,) * 4)
    places = set()
    for old, new in zip(padded, after, strict=True):
        found = [
            (down, across)
            for down in range(5)
            for across in range(5)
            if torch.equal(old[:, down : down + 8, across : across + 8], new)
        ]
        assert len(found) == 1
        places.add(found[0])
    assert {place for pair in places for place in pair} == {0, 1, 2, 3, 4}


def test_erasing_puts_one_grey_rectangle() -> None:
    """What changed is grey, a box, and no larger than the share of the width."""
    before = images(40)
    after = only(erase=0.5)(before, Dice(0))
    for old, new in zip(before, after, strict=True):
        changed = (old != new).any(0)
        assert (new[:, changed] == 0.5).all()
        rows, columns = changed.any(1), changed.any(0)
        assert int(changed.sum()) == int(rows.sum()) * int(columns.sum())
        assert max(int(rows.sum()), int(columns.sum())) <= 4


@pytest.mark.parametrize("seed", range(8))
def test_cutmix_shares_equal_area(seed: int) -> None:
    """A picture's share of its own class is its share of the pixels, exactly."""
    pictures = images(6)
    soft = shares(torch.arange(6), 6)
    mixed, mixed_soft = cutmix(pictures, soft, Dice(seed))
    own = (mixed == pictures).all(1).float().mean((1, 2))
    other = (mixed == pictures.roll(1, 0)).all(1).float().mean((1, 2))
    assert torch.allclose(own + other, torch.ones(6))
    assert torch.allclose(mixed_soft.diagonal(), own, atol=1e-6)
    assert torch.allclose(mixed_soft.sum(1), torch.ones(6))
