"""Conformal p-values and their guarantee."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from guard import calibration
from guard.calibration import Calibration
from guard.errors import InputError, PackError

scores = hnp.arrays(np.float32, st.tuples(st.integers(1, 60), st.just(2)), elements=st.floats(
    -100, 100, width=32
))  # fmt: skip


@given(scores, st.floats(-150, 150, width=32))
def test_p_values_are_what_the_formula_says(table: np.ndarray, score: float) -> None:
    """p = (1 + #{calibration >= s}) / (n + 1), counted one by one, ties included."""
    entry = Calibration.fit(("a", "b"), table)
    seen = entry.p_values(np.array([[score, score]], np.float32))[0]
    counted = (1 + (table >= np.float32(score)).sum(0)) / (len(table) + 1)
    assert seen == pytest.approx(counted)


def test_exchangeable_scores_keep_the_budget_on_average() -> None:
    """Over many draws of calibration set and new image, the alarm rate does not exceed the
    budget."""
    rng = np.random.default_rng(0)
    alarms = [
        Calibration.fit(("s",), draw[:99, None]).p_values(draw[99:, None])[0, 0] <= 0.05
        for draw in rng.standard_normal((4000, 100)).astype(np.float32)
    ]
    assert np.mean(alarms) == pytest.approx(0.05, abs=0.012)


def test_the_realised_rate_lies_in_its_interval() -> None:
    """About 95% of calibration sets realise a rate inside the beta interval they state."""
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(300):
        entry = Calibration.fit(("s",), rng.uniform(size=(199, 1)).astype(np.float32))
        threshold = entry.scores[-int(0.05 * 200), 0]
        low, high = entry.realised_rate(0.05)
        inside += low <= 1 - threshold <= high
    assert inside / 300 == pytest.approx(0.95, abs=0.05)


def test_nan_scores_have_no_p_value() -> None:
    """A score that is not finite gets NaN, never a p-value that could pass."""
    entry = Calibration.fit(("s",), np.zeros((9, 1), np.float32))
    odd = np.array([[np.nan], [np.inf], [-np.inf]], np.float32)
    assert np.isnan(entry.p_values(odd)).all()


def test_dump_and_load_round_trip(tmp_path: Path) -> None:
    """A calibration file gives back the same scores, names and description, byte for byte."""
    entry = Calibration.fit(("s",), np.ones((5, 1), np.float32), about={"pack": "sha256:0"})
    data = calibration.dump({"alone": entry})
    (tmp_path / "c.npz").write_bytes(data)
    back = calibration.load(tmp_path / "c.npz")["alone"]
    assert (back.names, dict(back.about)) == (entry.names, {"pack": "sha256:0"})
    assert calibration.dump({"alone": back}) == data


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x80\x04pickle", b"{}"])
def test_anything_else_is_refused(data: bytes) -> None:
    """Bytes that are no calibration file are a PackError, and nothing is unpickled."""
    with pytest.raises(PackError):
        calibration.load(data)


def test_unsorted_scores_are_refused() -> None:
    """A file whose columns are not ascending would give wrong p-values, so it is refused."""
    entry = Calibration(("s",), np.array([[2.0], [1.0]], np.float32))
    with pytest.raises(PackError, match="ascending"):
        calibration.load(calibration.dump({"alone": entry}))


def test_scores_that_are_not_finite_cannot_calibrate() -> None:
    """NaN among calibration scores is an error, not a threshold."""
    with pytest.raises(InputError, match="not finite"):
        Calibration.fit(("s",), np.array([[np.nan]], np.float32))
