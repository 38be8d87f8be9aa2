"""What changed, told by two tests together: a night, an attack, or neither."""

import numpy as np
import pytest

from guard.calibration import Calibration
from guard.data import signs
from guard.traffic.shift import ADVICE, TrafficShift

IMAGES = signs.make(600, seed=7, size=32).pixels()
RANDOM = np.random.default_rng(0)


def made(reference: int = 300) -> TrafficShift:
    """A watch whose calibration is uniform scores."""
    scores = np.linspace(0, 1, 999, dtype=np.float32)[:, None]
    fit = Calibration.fit(("detector",), scores)
    return TrafficShift(fit, risk=0.001, tolerance=0.25, reference=reference)


def pictures(count: int) -> np.ndarray:  # type: ignore[type-arg]
    """Signs under fresh noise, so that no two are the same."""
    chosen = IMAGES[RANDOM.integers(0, len(IMAGES), count)]
    noise = RANDOM.uniform(-0.01, 0.01, chosen.shape).astype(np.float32)
    return np.clip(chosen + noise, 0, 1)


def uniform(count: int) -> np.ndarray:  # type: ignore[type-arg]
    """Clean p-values."""
    return RANDOM.random(count).astype(np.float32)


def settled() -> TrafficShift:
    """A watch that has learned what pictures look like, and seen a while of clean traffic."""
    shift = made()
    assert shift.finding == "learning"
    for _ in range(4):
        shift.see(uniform(250), pictures(250))
    assert shift.finding == "steady"
    return shift


def test_an_attack_is_suspicious() -> None:
    """Small p-values on pictures as before."""
    shift = settled()
    shift.see(uniform(600) * np.float32(0.3), pictures(600))
    assert shift.finding == "suspicious"


def test_a_night_that_the_detector_minds_asks_for_a_new_calibration() -> None:
    """Dark pictures and small p-values."""
    shift = settled()
    shift.see(uniform(600) * np.float32(0.3), pictures(600) / 3)
    assert shift.finding == "recalibrate"


def test_a_night_that_the_detector_does_not_mind_is_harmless() -> None:
    """Dark pictures, p-values as calibrated."""
    shift = settled()
    shift.see(uniform(600), pictures(600) / 3)
    assert shift.finding == "harmless"


def test_a_detector_that_sees_nothing_any_more_is_quiet() -> None:
    """Only large p-values: the budget is not used, and attacks pass more easily."""
    shift = settled()
    shift.see(1 - uniform(600) / 3, pictures(600))
    assert shift.finding == "quiet"


def test_one_picture_sent_a_thousand_times_is_no_drift() -> None:
    """A client that tries again for ever counts once."""
    shift = settled()
    for _ in range(100):
        shift.see(np.full(10, 0.001, np.float32), np.repeat(IMAGES[:1], 10, 0))
    assert shift.finding == "steady"


def test_an_image_without_a_verdict_says_nothing() -> None:
    """NaN where the defence failed."""
    shift = made()
    shift.see(np.full(500, np.nan, np.float32), pictures(500))
    assert shift.finding == "learning"


@pytest.mark.parametrize("finding", ADVICE)
def test_every_finding_has_its_advice(finding: str) -> None:
    """One line each, that fits a log."""
    assert 10 < len(ADVICE[finding]) < 200  # type: ignore[index]
