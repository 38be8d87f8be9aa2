"""Decisions from p-values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from guard.verdict import Decision, Policy, Verdicts, decide

anything = hnp.arrays(np.float32, 8, elements=st.floats(width=32, allow_nan=True))
policies = st.builds(
    Policy,
    mode=st.sampled_from(["monitor", "enforce"]),
    on_flag=st.sampled_from(["annotate", "substitute", "block"]),
    on_error=st.sampled_from(["block", "allow"]),
    max_false_positive_rate=st.floats(0.001, 0.5),
)


def one(p_value: float, **policy: object) -> tuple[Decision, bool]:
    """The decision on one p-value, and whether the answer is substituted."""
    decisions, substituted = decide(
        np.array([p_value], np.float32), np.array([True]), Policy(**policy)
    )
    return Decision(int(decisions[0])), bool(substituted[0])


@given(anything, policies)
def test_a_p_value_that_is_no_number_is_an_error(p_values: np.ndarray, policy: Policy) -> None:
    """Under every policy NaN and infinity end in ERROR, and in nothing else."""
    decisions, _ = decide(p_values, np.ones(8, bool), policy)
    assert ((decisions == Decision.ERROR) == ~np.isfinite(p_values)).all()


@given(anything, policies)
def test_an_image_marked_unusable_is_an_error(p_values: np.ndarray, policy: Policy) -> None:
    """A row whose numbers were not all finite is ERROR whatever its p-value says."""
    decisions, substituted = decide(p_values, np.zeros(8, bool), policy)
    assert (decisions == Decision.ERROR).all()
    assert not substituted.any()


@pytest.mark.parametrize(
    ("policy", "decision", "substituted"),
    [
        ({"mode": "monitor", "on_flag": "block"}, Decision.FLAG, False),
        ({"mode": "enforce", "on_flag": "annotate"}, Decision.FLAG, False),
        ({"mode": "enforce", "on_flag": "substitute"}, Decision.FLAG, True),
        ({"mode": "enforce", "on_flag": "block"}, Decision.BLOCK, False),
    ],
)
def test_what_a_policy_makes_of_an_alarm(
    policy: dict[str, str], decision: Decision, substituted: bool
) -> None:
    """Monitor only records; enforce annotates, substitutes or blocks."""
    assert one(0.005, **policy) == (decision, substituted)


def test_the_budget_itself_is_an_alarm() -> None:
    """p equal to the budget counts as an alarm, so that P(alarm) <= budget is tight."""
    assert one(0.25, max_false_positive_rate=0.25)[0] is Decision.FLAG


def test_a_clear_image_is_allowed() -> None:
    """A p-value above the budget is ALLOW and nothing is substituted."""
    assert one(0.5, mode="enforce", on_flag="substitute") == (Decision.ALLOW, False)


def test_rows_name_the_scores() -> None:
    """One verdict per image, its scores under their names, and JSON without NaN."""
    verdicts = Verdicts(
        decisions=np.array([0, 4], np.int32),
        p_values=np.array([0.5, np.nan], np.float32),
        labels=np.array([1, 0]),
        probabilities=np.zeros((2, 2), np.float32),
        scores=np.array([[1, 2], [3, np.nan]], np.float32),
        score_p_values=np.array([[0.1, 0.5], [0.1, np.nan]], np.float32),
        score_names=("noise", "detector"),
        substituted=np.zeros(2, bool),
    )
    good, bad = verdicts.rows()
    assert (good.decision, good.label, good.scores) == (
        Decision.ALLOW,
        1,
        {"noise": 1.0, "detector": 2.0},
    )
    assert bad.decision is Decision.ERROR
    assert bad.record()["p_value"] is None
