"""Consistency under noise."""

import pytest
import torch

from guard.defenses import Answers
from guard.defenses.noise import NoiseConsistency


def test_views_are_the_given_noise() -> None:
    """A copy is image + sigma * noise, clipped; copies come first, images second."""
    images, noise = torch.rand(2, 3, 4, 4), torch.randn(2, 5, 3, 4, 4)
    views = NoiseConsistency(0.1).views(images, noise)
    assert views.shape == (5, 2, 3, 4, 4)
    assert torch.equal(views[4, 1], (images[1] + 0.1 * noise[1, 4]).clamp(0, 1))


def test_flips_and_drop() -> None:
    """Flips count changed classes, the drop is the mean loss of the original class."""
    original = torch.tensor([[0.75, 0.25], [0.5, 0.5]])
    views = torch.tensor(
        [[[0.25, 0.75], [0.5, 0.5]], [[0.75, 0.25], [0.5, 0.5]], [[0.25, 0.75], [0.5, 0.5]]]
    )
    defense = NoiseConsistency()
    evidence = defense.measure(Answers(original, views, original[None], None))
    assert evidence[0].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert evidence[1].tolist() == [0.0, 0.0]
    assert defense.score(evidence)[0] > defense.score(evidence)[1]


def test_flips_have_a_gradient() -> None:
    """Votes pass the gradient of the probability that stands behind them."""
    logits = torch.randn(4, 3, 6, requires_grad=True)
    original = torch.softmax(torch.randn(3, 6), -1)
    answers = Answers(original, torch.softmax(logits, -1), original[None], None)
    NoiseConsistency().measure(answers)[:, 0].sum().backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum() > 0
