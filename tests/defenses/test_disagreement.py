"""Ensemble, sentinel and upstream disagreement."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy

from guard.defenses import FLOOR, Answers
from guard.defenses.ensemble import Disagreement, jensen_shannon
from guard.defenses.sentinel import Sentinel
from guard.defenses.upstream import upstream_odds

NOTHING = torch.zeros(0, 3, 4)
ROBUST = torch.tensor([[[0.6, 0.2, 0.1, 0.1]] * 3, [[0.8, 0.1, 0.1, 0.0]] * 3])


def test_two_members_equal_scipys_distance() -> None:
    """The divergence of two members is the square of scipy's Jensen-Shannon distance."""
    members = torch.softmax(torch.randn(2, 8, 10) * 3, -1)
    expected = jensenshannon(members[0].numpy(), members[1].numpy(), axis=1) ** 2
    assert np.abs(jensen_shannon(members).numpy() - expected).max() < 1e-6


def test_many_members_equal_scipys_entropies() -> None:
    """The divergence of M members is the entropy of the mean less the mean entropy."""
    members = torch.softmax(torch.randn(4, 8, 10) * 3, -1)
    expected = entropy(members.mean(0).numpy(), axis=1) - entropy(members.numpy(), axis=2).mean(0)
    assert np.abs(jensen_shannon(members).numpy() - expected).max() < 1e-6


def test_certain_members_stay_finite() -> None:
    """Probabilities of exactly zero give log 2 for two opposite answers, not NaN."""
    assert jensen_shannon(torch.eye(2)[:, None]).item() == pytest.approx(np.log(2))


def test_confidence_and_margin() -> None:
    """Confidence is log r_max, margin log r_1 - log r_2, of the mean answer."""
    evidence = Disagreement().measure(Answers(ROBUST[0], NOTHING, ROBUST, None))
    assert evidence[0, 1:].tolist() == pytest.approx([np.log(0.7), np.log(0.7 / 0.15)])
    assert Disagreement().score(evidence).tolist() == evidence[:, 0].tolist()


def test_sentinel_odds() -> None:
    """The odds are zero when the sentinel agrees and grow with the ensemble's doubt."""
    sentinel = torch.eye(4)[[0, 1, 3]]
    evidence = Sentinel().measure(Answers(sentinel, NOTHING, ROBUST, sentinel))
    assert evidence[:, 0].tolist() == pytest.approx([0, np.log(0.7 / 0.15), np.log(0.7 / 0.05)])
    assert evidence[:, 1].tolist() == [0, 0, 0]


def test_sentinel_defence_needs_a_sentinel() -> None:
    """Without one the defence says so."""
    with pytest.raises(ValueError, match="sentinel"):
        Sentinel().measure(Answers(ROBUST[0], NOTHING, ROBUST, None))


def test_upstream_odds_do_not_care_how_sure_the_upstream_is() -> None:
    """One-hot or hesitant, only the upstream's label counts, and the odds are bounded."""
    robust = torch.tensor([[0.9, 0.1, 0.0], [0.9, 0.1, 0.0]])
    unsure = torch.tensor([[0.3, 0.4, 0.3], [0.3, 0.3, 0.4]])
    odds = upstream_odds(robust, unsure)
    assert torch.equal(odds, upstream_odds(robust, torch.eye(3)[unsure.argmax(1)]))
    assert odds.tolist() == pytest.approx([np.log(9), np.log(0.9 / FLOOR)], rel=1e-5)
