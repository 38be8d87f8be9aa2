"""Reviewed suspects as rows."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from guard.errors import InputError
from guard.rows import Rows, joined
from guard.training.reviewed import Reviewed, from_traffic, has_upstream


def reviewed(**changes: Any) -> Reviewed:
    """Three of them: an attack, a benign one, and a benign one without an upstream."""
    return replace(
        Reviewed(
            columns=("signal", "upstream_odds"),
            id=np.array(["a", "b", "c"]),
            features=np.arange(6, dtype=np.float32).reshape(3, 2),
            has_upstream=np.array([True, True, False]),
            suspicious=np.array([True, False, False]),
            client=np.array(["x", "x", "y"]),
            day=np.array([1, 2, 3], np.int32),
            reviewers=np.array([1, 1, 2], np.int16),
            dissent=np.zeros(3, np.int16),
            sampled=np.array([False, True, True]),
            model=np.array(["m"] * 3),
            pack=np.array(["p"] * 3),
            predicted=np.zeros(3, np.int32),
        ),
        **changes,
    )


def test_rows_remember_where_they_come_from() -> None:
    """Their kinds tell traffic from what was made here, and whether there was an upstream."""
    rows = reviewed().rows()
    assert [rows.kinds[kind] for kind in rows.kind] == [
        "suspect adversarial",
        "suspect benign",
        "suspect benign alone",
    ]
    made = Rows.of("clean", rows.columns, rows.features, suspicious=False)
    both = joined([made, rows])
    assert from_traffic(both).tolist() == [False] * 3 + [True] * 3
    assert has_upstream(both).tolist() == [True] * 5 + [False]
    assert (rows.label == -1).all()


def test_a_part_keeps_everything_in_step() -> None:
    """By mask or by index."""
    part = reviewed().subset(np.array([2, 0]))
    assert (part.id.tolist(), part.day.tolist()) == (["c", "a"], [3, 1])
    assert part.features.tolist() == [[4, 5], [0, 1]]
    assert len(reviewed().subset(np.array([True, False, False]))) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": np.zeros((3, 3), np.float32)}, "not \\(R, 2\\)"),
        ({"day": np.zeros(2, np.int32)}, "one of everything"),
        ({"features": np.full((3, 2), np.nan, np.float32)}, "not finite"),
        ({"id": np.array(["a", "a", "b"])}, "there twice"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    """In one line."""
    with pytest.raises(InputError, match=message):
        reviewed(**changes)
