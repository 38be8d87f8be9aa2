"""Random numbers that do not depend on how many processes there are."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from guard.training.augment import Augment, cutmix
from guard.training.dice import Dice
from guard.training.losses import shares
from tests.training.toys import colours

DRAWS: dict[str, Callable[[Dice, int], Tensor]] = {
    "uniform": lambda dice, count: dice.uniform(count, 3, 4),
    "normal": lambda dice, count: dice.normal(count, 3, 4),
    "spread": lambda dice, count: dice.spread(count, 0.7),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_together_draw_what_one_process_draws(name: str, world: int) -> None:
    """Joined rank by rank the numbers are the same, draw after draw."""
    whole, parts = Dice(7), [Dice(7, rank=rank, world=world) for rank in range(world)]
    for _ in range(3):
        expected = DRAWS[name](whole, 4 * world)
        assert torch.equal(torch.cat([DRAWS[name](one, 4) for one in parts]), expected)


def test_what_concerns_the_batch_is_the_same_everywhere() -> None:
    """Picks and shared numbers agree, and leave every rank where one process would be."""
    dice = [Dice(3), Dice(3, rank=0, world=2), Dice(3, rank=1, world=2)]
    assert len({one.pick((1, 1, 1, 1)) for one in dice}) == 1
    assert len({float(one.shared(2).sum()) for one in dice}) == 1
    states = [one.generator.get_state() for one in dice]
    assert states[0].equal(states[1])
    assert states[0].equal(states[2])


def test_picks_follow_the_weights() -> None:
    """An index is drawn as often as its weight says, and never with weight zero."""
    dice = Dice(0)
    counts = torch.bincount(torch.tensor([dice.pick((1, 0, 3)) for _ in range(4000)]))
    assert counts[1] == 0
    assert abs(float(counts[2]) / 4000 - 0.75) < 0.03


def test_augmentation_is_the_same_in_two_processes() -> None:
    """Two halves, changed on two ranks, are the whole batch changed by one process."""
    augment = Augment(10, 0.1, 0.1, 0.2, 0.2, 0.05, flip=True, crop=2, erase=0.3)
    images = colours(16, 0).pixels(torch.arange(16))
    parts = [augment(images[8 * r : 8 * r + 8], Dice(1, rank=r, world=2)) for r in (0, 1)]
    assert torch.allclose(torch.cat(parts), augment(images, Dice(1)), atol=1e-6)


def test_cutmix_is_the_same_in_two_processes() -> None:
    """The box is common and a rank's first picture has its neighbour on the rank before."""
    pictures = colours(16, 0)
    images, soft = pictures.pixels(torch.arange(16)), shares(pictures.labels, 3)
    expected = cutmix(images, soft, Dice(5))

    def part(rank: int) -> tuple[Tensor, Tensor]:
        rows = slice(8 * rank, 8 * rank + 8)

        def neighbours(mine: Tensor) -> Tensor:
            return (images if mine.ndim == 4 else soft).roll(1, 0)[rows]

        dice = Dice(5, rank=rank, world=2)
        return cutmix(images[rows], soft[rows], dice, neighbours=neighbours)

    found = [torch.cat(pair) for pair in zip(part(0), part(1), strict=True)]
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
