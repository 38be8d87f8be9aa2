"""The learning rate over a training."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.errors import InputError
from guard.training.rates import Schedule, share

SCHEDULES = get_args(Schedule)


@given(st.sampled_from(SCHEDULES), st.floats(0, 1))
def test_no_schedule_leaves_its_range(name: str, progress: float) -> None:
    """A share of the peak is between 0 and 1."""
    assert 0 <= share(name, progress) <= 1


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("cyclic", {0.0: 0.0, 0.15: 0.5, 0.3: 1.0, 0.65: 0.5, 1.0: 0.0}),
        ("onecycle", {0.0: 0.04, 0.15: 0.52, 0.3: 1.0, 0.65: 0.5, 1.0: 0.0}),
        ("cosine", {0.0: 1.0, 0.5: 0.5, 1.0: 0.0}),
        ("steps", {0.0: 1.0, 0.74: 1.0, 0.75: 0.1, 0.9: 0.01, 1.0: 0.01}),
        ("constant", {0.0: 1.0, 1.0: 1.0}),
    ],
)
def test_schedules_pass_through_known_points(name: str, known: dict[float, float]) -> None:
    """As their papers draw them."""
    for progress, expected in known.items():
        assert share(name, progress) == pytest.approx(expected, abs=1e-9)


def test_an_unknown_schedule_is_named() -> None:
    """The error lists those there are."""
    with pytest.raises(InputError, match="no schedule 'linear'; there are cyclic"):
        share("linear", 0.5)
