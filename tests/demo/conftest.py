"""Fixtures: the shipped pack of signs, and what a run might report."""

from pathlib import Path

import pytest

from guard.demo.report import Latency, Report, Row
from guard.demo.run import find_pack
from guard.errors import PackError


@pytest.fixture(scope="session")
def signs_pack() -> Path:
    """models/signs; what needs it is skipped where it has not been built yet."""
    try:
        return find_pack(None).resolve()
    except PackError as error:
        pytest.skip(str(error))


@pytest.fixture
def report() -> Report:
    """A report with a clean row and two attacks."""
    return Report(
        pack="signs",
        digest="sha256:0",
        production={"architecture": "broad", "parameters": 70000, "training_pictures": 10},
        false_alarm_budget=0.01,
        calibration_pictures=100,
        rows=[
            Row("clean signs", 720, 0.975, None, None, 0.0125),
            Row("FGSM 8/255", 150, 0.02, 0.98, 0.1, 0.9),
            Row("sticker, stop to speed_50", 8, 0.0, 1.0, 0.0, 1.0),
        ],
        sticker={"from": "stop", "to": "speed_50", "read_as_wanted": 0.875},
        latency=Latency(1.0, 3.5, 700),
        metrics={'guard_verdicts_total{decision="ALLOW",model="signs"}': 724.0},
        card="models/signs/MODEL_CARD.md",
        seed=0,
        seconds=60.0,
    )
