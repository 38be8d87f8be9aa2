"""The test for drift keeps its promise on clean p-values, and sees what changes."""

import numpy as np
import pytest

from guard.traffic.drift import BLOCK, LEVELS, Band, Drift, band

RISK = 0.01


def calibration(count: int = 2000, seed: int = 0) -> np.ndarray:  # type: ignore[type-arg]
    """Sorted scores (n, 1)."""
    return np.sort(np.random.default_rng(seed).random((count, 1)).astype(np.float32), axis=0)


def live(scores: np.ndarray, count: int, seed: int) -> np.ndarray:  # type: ignore[type-arg]
    """p-values (N, 1) of pictures like the calibration's."""
    new = np.random.default_rng(seed).random(count).astype(np.float32)
    return ((1 + len(scores) - np.searchsorted(scores[:, 0], new)) / (len(scores) + 1))[:, None]


def made(scores: np.ndarray) -> Drift:  # type: ignore[type-arg]
    """A test with the usual tolerance."""
    return Drift(band(scores, tolerance=0.25), risk=RISK)


def attacked(count: int, share: float, seed: int = 0) -> np.ndarray:  # type: ignore[type-arg]
    """Uniform p-values (N, 1) of which a share is below 0.05."""
    random = np.random.default_rng(seed)
    values = random.random((count, 1)).astype(np.float32)
    return np.where(random.random((count, 1)) < share, values * np.float32(0.05), values)


@pytest.mark.parametrize("size", [300, 2000])
def test_clean_traffic_raises_no_alarm(size: int) -> None:
    """Ten calibrations, 30,000 clean p-values each: the evidence never gets near an alarm."""
    for seed in range(10):
        scores = calibration(size, seed)
        drift, worst = made(scores), 0.0
        for part in np.split(live(scores, 30_000, seed + 100), 30):
            drift.see(part.astype(np.float32))
            worst = max(worst, drift.evidence)
        assert worst < 1


def test_without_its_band_it_would_alarm_on_clean_traffic() -> None:
    """A calibration is never exact: against exact uniformity the same traffic is an alarm."""
    scores = calibration(300, 3)
    level = np.array(LEVELS)[:, None]
    drift = Drift(Band(band(scores, tolerance=0).levels, level, level), risk=RISK)
    worst = 0.0
    for part in np.split(live(scores, 100_000, 1), 100):
        drift.see(part.astype(np.float32))
        worst = max(worst, drift.evidence)
    assert worst >= 1


def test_wealth_does_not_grow_on_average_at_the_edge_of_the_band() -> None:
    """The bets are fair where they are hardest to win: the mean wealth of 4,000 streams is <= 1."""
    edge = np.full((1, 4000), 0.1)
    drift = Drift(Band(np.full((1, 4000), 0.5, np.float32), edge, edge), risk=1e-9)
    random = np.random.default_rng(0)
    for _ in range(10):
        drift.see(np.where(random.random((BLOCK, 4000)) < 0.1, 0.0, 1.0).astype(np.float32))
    wealth = np.exp(drift._wealth).mean(0)  # over sizes of a shift
    assert wealth.mean() <= 1.05
    assert wealth.mean() > 0.1


@pytest.mark.parametrize("before", [1000, 100_000])
def test_an_attack_is_seen_soon_however_long_nothing_happened(before: int) -> None:
    """A tenth of attacks is seen within 3,000 pictures, after a thousand as after 100,000."""
    scores = calibration()
    drift = made(scores)
    drift.see(live(scores, before, 5).astype(np.float32))
    assert drift.evidence < 1
    drift.see(attacked(3000, 0.1))
    assert drift.evidence >= 1
    assert drift.direction == "more"


def test_fewer_alarms_than_promised_are_a_drift_too() -> None:
    """Pictures that all look harmless are not what was calibrated."""
    drift = made(calibration())
    drift.see(1 - 0.5 * np.random.default_rng(0).random((2000, 1)).astype(np.float32))
    assert drift.evidence >= 1
    assert drift.direction == "fewer"


def test_it_forgets_a_drift_that_is_over() -> None:
    """The alarm ends within a few thousand clean pictures, however long the attack was."""
    scores = calibration()
    drift = made(scores)
    drift.see(attacked(20_000, 0.5))
    assert drift.evidence >= 1
    drift.see(live(scores, 3000, 9).astype(np.float32))
    assert drift.evidence < 1


def test_a_shift_within_the_tolerance_is_nobodys_concern() -> None:
    """Odds a tenth larger for good never raise an alarm."""
    random = np.random.default_rng(0)
    drift = made(calibration())
    odds = np.float32(1.1)
    for _ in range(20):
        value = random.random((5000, 1)).astype(np.float32)
        drift.see(value / (value + odds * (1 - value)))  # odds 1.1 times as large at every level
        assert drift.evidence < 1


def test_cut_up_in_any_way_it_is_the_same_test() -> None:
    """One by one, or all at once: the same evidence; what is not finite does not count."""
    values = attacked(400, 0.5)
    whole, single = made(calibration()), made(calibration())
    whole.see(values)
    for value in values:
        single.see(value[None])
        single.see(np.full((1, 1), np.nan, np.float32))
    assert whole.evidence == pytest.approx(single.evidence)
    assert whole.seen == single.seen == 400


def test_many_equal_scores_are_no_drift() -> None:
    """Where a third of all scores are one number, the same traffic is still as calibrated."""
    scores = np.sort(np.maximum(calibration(), np.float32(0.33)), axis=0)
    new = np.maximum(np.random.default_rng(4).random(30_000).astype(np.float32), np.float32(0.33))
    p_values = (1 + len(scores) - np.searchsorted(scores[:, 0], new)) / (len(scores) + 1)
    drift = made(scores)
    drift.see(p_values[:, None].astype(np.float32))
    assert drift.evidence < 1


def test_a_tiny_calibration_has_a_band_all_the_same() -> None:
    """Two levels may be one rank, and a band may reach the end: no bet is ruinous or infinite."""
    drift = made(calibration(60))
    drift.see(attacked(3000, 1.0))
    assert np.isfinite(drift.evidence)
    assert drift.evidence >= 1
