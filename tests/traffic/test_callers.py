"""Callers one by one: who copies with other pictures, or attacks, is found in honest traffic."""

import numpy as np
import pytest

from guard.calibration import Calibration
from guard.traffic.callers import Callers

SCORES = np.linspace(0, 1, 999, dtype=np.float32)[:, None]
FIT = Calibration.fit(("detector",), SCORES)
RANDOM = np.random.default_rng(0)


def made(most: int = 100) -> Callers:
    """A watch over so many callers."""
    return Callers(FIT, most=most, risk=0.001, tolerance=0.25)


def clean(count: int) -> np.ndarray:  # type: ignore[type-arg]
    """p-values of clean pictures."""
    return RANDOM.random(count).astype(np.float32)


def test_one_strange_caller_among_honest_ones_is_found() -> None:
    """Fifty clean callers, one whose pictures are small p-values half the time: found, once."""
    callers = made()
    told = []
    for _ in range(20):
        for number in range(50):
            assert not callers.see(f"honest {number}", clean(16))
        odd = clean(16)
        odd[:8] *= np.float32(0.05)
        told.append(callers.see("odd", odd))
    assert sum(told) == 1
    assert callers.counts()["strange"] == 1
    assert callers.counts()["usual"] == 50


def test_an_honest_heavy_user_stays_usual() -> None:
    """Two hundred thousand clean pictures of one caller are not strange."""
    callers = made()
    for _ in range(20):
        assert not callers.see("busy", clean(10_000))
    assert callers.counts() == {"usual": 1}


def test_a_caller_whose_pictures_are_all_harmless_is_not_strange() -> None:
    """Fewer small p-values than usual are nobody's attack."""
    callers = made()
    assert not callers.see("easy", 1 - clean(5000) / 3)
    assert callers.counts() == {"usual": 1}


@pytest.mark.parametrize("most", [1, 7])
def test_the_memory_is_for_so_many_callers(most: int) -> None:
    """Who asked longest ago is forgotten first."""
    callers = made(most)
    for number in range(50):
        callers.see(f"caller {number}", clean(16))
    assert sum(callers.counts().values()) == most


def test_callers_do_not_share_what_was_seen_of_them() -> None:
    """Each begins with nothing, even after a strange one."""
    callers = made()
    assert callers.see("odd", clean(400) * np.float32(0.02))
    assert not callers.see("new", clean(400))
    assert callers.counts() == {"strange": 1, "usual": 1}
