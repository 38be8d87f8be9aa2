"""As much of a lesson as does no harm, head by head."""

import copy

import pytest
import torch

from guard.defenses.detector import Detector
from guard.defenses.squeezing import Squeezing
from guard.training.temper import HEADS, SHARES, mixed, temper


@pytest.fixture
def parent() -> Detector:
    """With random weights."""
    torch.manual_seed(0)
    return Detector([Squeezing()], hidden=4).requires_grad_(False)


@pytest.fixture
def child(parent: Detector) -> Detector:
    """Every weight is one more."""
    found = copy.deepcopy(parent)
    for parameter in found.parameters():
        parameter.add_(1.0)
    return found


def moved(parent: Detector, other: Detector, head: str) -> float:
    """How far a head's last layer is from the parent's; 1 is all the way."""
    return float((getattr(other, head).last.bias - getattr(parent, head).last.bias)[0])


def test_heads_go_their_own_way(parent: Detector, child: Detector) -> None:
    """Weights lie between the two, and neither of the two is changed."""
    between = mixed(parent, child, {"alone": 0.25, "upstream": 0.0})
    assert moved(parent, between, "alone") == pytest.approx(0.25)
    assert moved(parent, between, "upstream") == 0
    assert moved(parent, child, "alone") == pytest.approx(1)


def test_a_head_goes_as_far_as_is_harmless(parent: Detector, child: Detector) -> None:
    """Each stops at the first share of which nobody complains."""

    def worse(detector: Detector) -> set[str]:
        limits = {"alone": 0.6, "upstream": 1.0}
        return {head for head in HEADS if moved(parent, detector, head) > limits[head] + 1e-6}

    between, went = temper(parent, child, worse)
    assert went == {"alone": 0.55, "upstream": 1.0}
    assert moved(parent, between, "alone") == pytest.approx(0.55)


def test_a_head_that_always_harms_stays_the_parents(parent: Detector, child: Detector) -> None:
    """The other one still learns."""
    between, went = temper(
        parent, child, lambda d: {"alone"} if moved(parent, d, "alone") > 0 else set()
    )
    assert went == {"alone": 0.0, "upstream": 1.0}
    assert moved(parent, between, "alone") == 0


def test_a_lesson_that_harms_everywhere_is_left_to_the_gate(
    parent: Detector, child: Detector
) -> None:
    """Then it is not made harmless in secret: the gate has to see it and say why."""
    asked = []

    def worse(detector: Detector) -> set[str]:
        asked.append(detector)
        return set(HEADS)

    between, went = temper(parent, child, worse)
    assert went == {"alone": 1.0, "upstream": 1.0}
    assert between is child
    assert len(asked) == len(SHARES)
