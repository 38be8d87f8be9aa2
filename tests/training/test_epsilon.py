"""How strong the examples are over a training."""

import pytest

from guard.training.epsilon import Epsilon


def test_warm_climbs_in_a_line_and_stays() -> None:
    """Half of the budget at half of the way, the budget from there on."""
    epsilon = Epsilon("warm", 0.04, warm=0.5)
    assert [epsilon.at(progress) for progress in (0, 0.25, 0.5, 1)] == [0, 0.02, 0.04, 0.04]
    assert Epsilon("warm", 0.04, warm=0.0).at(0.01) == 0.04


def test_the_literal_rule_climbs_to_its_clamp() -> None:
    """The adversarial loss is the larger one, so eps climbs, alpha times the gap a step."""
    epsilon = Epsilon("literal", 0.03, start=0.05, alpha=0.001, low=0.01, high=0.06)
    epsilon.learn(2.5, 1.5)
    assert epsilon.at(0.0) == pytest.approx(0.051)
    for _ in range(50):
        epsilon.learn(2.5, 1.5)
    assert epsilon.at(1.0) == 0.06


@pytest.mark.parametrize("start", [0.011, 0.059])
def test_the_steered_kind_settles_at_the_gap(start: float) -> None:
    """Where the gap of the losses grows with eps it ends at the wanted gap, from either side."""
    epsilon = Epsilon("steered", 0.03, start=start, alpha=0.01, low=0.01, high=0.06, gap=0.5)
    for _ in range(200):
        epsilon.learn(1.0 + epsilon.value / 0.06, 1.0)  # a gap of 0.5 belongs to eps 0.03
    assert epsilon.at(0.5) == pytest.approx(0.03, abs=1e-4)


def test_eps_stays_within_its_clamps() -> None:
    """However far apart the losses are."""
    epsilon = Epsilon("steered", 0.03, low=0.01, high=0.06)
    epsilon.learn(1e6, 0.0)
    assert epsilon.value == 0.01
    epsilon.learn(-1e6, 0.0)
    assert epsilon.value == 0.06
