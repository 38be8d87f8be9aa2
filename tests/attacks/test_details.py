"""What single attacks promise beyond the contract."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from guard.attacks import cw, deepfool, pgd
from guard.attacks.ball import draw, lengths, project
from guard.attacks.goal import Goal
from guard.attacks.patch import Sticker, patch

from .conftest import Victim


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_ball(norm: str) -> None:
    """Draws and projections stay in the ball and in [0, 1]; points inside are not moved."""
    images = torch.rand(8, 3, 4, 4, generator=_generator())
    start = draw(images, eps=0.1, norm=norm, generator=_generator())  # type: ignore[arg-type]
    far = project(images + 1, images, eps=0.1, norm=norm)  # type: ignore[arg-type]
    for points in (start, far):
        change = points - images
        size = change.abs().amax((1, 2, 3)) if norm == "linf" else lengths(change).flatten()
        assert (size <= 0.1 + 1e-6).all()
        assert points.min() >= 0
        assert points.max() <= 1
    same = project(start, images, eps=0.1, norm=norm)  # type: ignore[arg-type]
    assert torch.allclose(same, start, atol=1e-6)


def test_goal_margin() -> None:
    """The margin is positive exactly when the goal is reached, targeted or not."""
    logits = torch.tensor([[3.0, 1.0, 0.0], [1.0, 3.0, 0.0]])
    labels = torch.tensor([0, 0])
    away = Goal(labels, None, "margin")
    assert away.rise(logits).tolist() == [-2.0, 2.0]
    assert away.reached(logits).tolist() == [False, True]
    toward = Goal(labels, torch.tensor([2, 1]), "margin")
    assert toward.rise(logits).tolist() == [-3.0, 2.0]
    assert toward.reached(logits).tolist() == [False, True]


def test_restarts_never_hurt(victim: Victim) -> None:
    """Images fooled by the first run stay fooled, and further runs add some."""
    rates = []
    for restarts in (1, 3):
        found = pgd.pgd(
            victim.model, victim.images, victim.labels,
            eps=3 / 255, steps=5, restarts=restarts, generator=_generator(),
        )  # fmt: skip
        with torch.no_grad():
            rates.append((victim.model(found).argmax(1) != victim.labels).float().mean())
    assert rates[1] >= rates[0]


def test_early_stop_changes_less(victim: Victim) -> None:
    """Stopping at the boundary fools as many, with smaller changes."""

    def run(stop: bool) -> torch.Tensor:
        return pgd.pgd(
            victim.model, victim.images, victim.labels,
            eps=8 / 255, steps=10, early_stop=stop, generator=_generator(),
        )  # fmt: skip

    full, early = run(False), run(True)
    with torch.no_grad():
        fooled = [
            (victim.model(x).argmax(1) != victim.labels).float().mean() for x in (full, early)
        ]
    assert fooled[1] >= fooled[0] - 0.03
    assert lengths(early - victim.images).mean() < 0.9 * lengths(full - victim.images).mean()


@pytest.mark.parametrize("attack", [cw.cw, deepfool.deepfool])
def test_rows_do_not_depend_on_their_batch(
    attack: Callable[..., torch.Tensor], victim: Victim
) -> None:
    """An image attacked alone gives what it gives in a batch."""
    options: dict[str, Any] = (
        {"steps": 20, "searches": 2, "initial_weight": 1.0} if attack is cw.cw else {}
    )
    whole = attack(victim.model, victim.images[:6], victim.labels[:6], **options)
    alone = attack(victim.model, victim.images[2:3], victim.labels[2:3], **options)
    assert torch.allclose(whole[2:3], alone, atol=2e-3)


def test_misclassified_images_are_left_alone(victim: Victim) -> None:
    """DeepFool returns an image that is wrong already unchanged, CW nearly so."""
    images, wrong = victim.images[:4], (victim.labels[:4] + 1) % 18
    assert torch.equal(deepfool.deepfool(victim.model, images, wrong), images)
    found = cw.cw(victim.model, images, wrong, steps=10, searches=1)
    assert lengths(found - images).max() < 1e-3


def test_confidence_widens_the_margin(victim: Victim) -> None:
    """CW with confidence 5 leads by at least 5 wherever it succeeds, at a larger distance."""
    images, labels = victim.images[:8], victim.labels[:8]
    goal = Goal(labels, None, "margin")
    sizes = []
    for confidence in (0.0, 5.0):
        found = cw.cw(
            victim.model, images, labels,
            steps=60, searches=3, initial_weight=1.0, confidence=confidence,
        )  # fmt: skip
        with torch.no_grad():
            margin = goal.margin(victim.model(found))
        assert (margin >= confidence - 1e-3).float().mean() > 0.8
        sizes.append(lengths(found - images).mean())
    assert sizes[1] > sizes[0]


def test_sticker_covers_its_square_only(victim: Victim) -> None:
    """An unturned sticker changes a square of its size; the mask keeps it on the sign."""
    images = torch.zeros(1, 3, 32, 32)
    sticker = Sticker(size=8, center=(0.5, 0.5), shift=0, turn=0, light=0)
    seen = sticker.stick(images, torch.ones(1, 3, 8, 8), torch.zeros(1, 4))
    square = torch.zeros(32, 32)
    square[12:20, 12:20] = 1
    assert torch.allclose(seen[0, 0], square, atol=1e-5)
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., :16] = 1
    found = patch(
        victim.model, victim.images[:4], victim.labels[:4],
        mask=mask, steps=3, generator=_generator(),
    )  # fmt: skip
    assert torch.equal(found[..., 16:], victim.images[:4, ..., 16:])


def test_sticker_keeps_its_print() -> None:
    """Pixels of the print arrive where they belong: down is down, right is right."""
    print_ = torch.zeros(1, 3, 8, 8)
    print_[0, 0, 0, :] = 1  # the upper edge is red
    print_[0, 2, :, 7] = 1  # the right edge is blue
    sticker = Sticker(size=8, center=(0.25, 0.75), shift=0, turn=0, light=0)
    seen = sticker.stick(torch.zeros(1, 3, 32, 32), print_, torch.zeros(1, 4))
    assert torch.allclose(seen[0, :, 4:12, 20:28], print_[0], atol=1e-5)


def test_one_print_or_one_each(victim: Victim) -> None:
    """A shared sticker looks the same on every picture, an own one does not."""
    still = Sticker(size=10, shift=0, turn=0, light=0)
    for shared in (True, False):
        found = patch(
            victim.model, victim.images[:2], victim.labels[:2],
            sticker=still, shared=shared, steps=3, generator=_generator(),
        )  # fmt: skip
        same = torch.allclose(found[0, :, 12:20, 12:20], found[1, :, 12:20, 12:20], atol=1e-5)
        assert same is shared
