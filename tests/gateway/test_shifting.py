"""Drift through a live gateway: metrics, a line of advice, and no answer is changed."""

import logging
from pathlib import Path

import numpy as np
import pytest

from guard.config.drift import Drift
from guard.gateway import shifting
from guard.testing import SHAPE, clean_images, suspicious_images
from tests.gateway.setting import Setting, Settings, counted, until

WATCH = Drift(watch=True, reference=200)


def fresh(images: np.ndarray, seed: int) -> np.ndarray:  # type: ignore[type-arg]
    """The same pictures under noise that no two share."""
    noise = np.random.default_rng(seed).uniform(-0.01, 0.01, images.shape)
    return np.clip(images + noise, 0, 1).astype(np.float32)


async def send(here: Setting, images: np.ndarray, rounds: int) -> None:  # type: ignore[type-arg]
    """So many requests with these pictures, waiting for the watch."""
    for seed in range(rounds):
        await here.caller.infer(fresh(images, seed))
        await until(lambda: not here.model._shifting._waiting)


def drift(of: str) -> float:
    """The gauge."""
    return counted("guard_drift", model="tiny", of=of)


async def test_an_attack_becomes_a_finding(
    tiny_pack: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing but striped pictures: the gauge passes 1, the log says what to look at."""
    caplog.set_level(logging.INFO, "guard")
    async with Settings() as settings:
        here = await settings.start(tiny_pack, drift=WATCH)
        assert counted("guard_drift_finding", model="tiny", finding="learning") == 1
        await send(here, suspicious_images([0, 1] * 20), 12)
        await until(lambda: drift("verdicts") >= 1)
        await until(lambda: counted("guard_drift_finding", model="tiny", finding="suspicious") == 1)
        assert counted("guard_drift_finding", model="tiny", finding="learning") == 0
        assert counted("guard_extraction_score", model="tiny", score="strange") == 1
    assert "do not calibrate on this traffic" in caplog.text
    assert "a caller's pictures are suspicious far more often" in caplog.text


async def test_without_the_setting_nothing_watches(tiny_pack: Path) -> None:
    """Off by default."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack)
        assert here.model._shifting is None


async def test_of_a_video_one_picture_in_so_many_is_looked_at(tiny_pack: Path) -> None:
    """`every = 10` of 400 pictures is about 40."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack, drift=Drift(watch=True, reference=200, every=10))
        await send(here, clean_images([0, 1] * 20), 10)
        await until(lambda: 200 - here.model._shifting.shift._missing >= 10)
        assert 200 - here.model._shifting.shift._missing <= 90


async def test_a_watch_that_fails_fails_no_request(
    tiny_pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted, and answers go on."""

    def fail(*_: object) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(shifting.TrafficShift, "see", fail)
    async with Settings() as settings:
        here = await settings.start(tiny_pack, drift=WATCH)
        before = counted("guard_errors_total", reason="drift")
        await here.caller.infer(clean_images([0]))
        await until(lambda: counted("guard_errors_total", reason="drift") == before + 1)
        await here.caller.infer(clean_images([1]))


async def test_what_a_slow_thread_leaves_is_bounded(
    tiny_pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond WAITING pictures none is kept."""
    monkeypatch.setattr(shifting, "WAITING", 3)
    async with Settings() as settings:
        here = await settings.start(tiny_pack, drift=WATCH)
        watch = here.model._shifting
        watch._thread.submit = lambda *_: None
        for _ in range(5):
            await here.caller.infer(np.zeros((2, *SHAPE), np.float32))
        assert watch._count == 2
