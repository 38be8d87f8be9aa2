"""The store of suspects fails: clients must not see any of it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from tests.faults.disk import empty, fill, no_disk, small_disk
from tests.faults.frame import Mode, fault
from tests.faults.stage import Stage

FAILURES = 'guard_suspects_failures_total{{task="{}"}}'.format
DROPPED = 'guard_suspects_dropped_total{{reason="{}"}}'.format


def keeping(**more: Any) -> str:
    """Settings that keep every image, on a small disk of their own."""
    settings = {
        "folder": "disk/suspects",
        "key_file": "suspects.key",
        "sample_rate": 1.0,
        "upkeep_seconds": 0.5,
        **more,
    }
    lines = (f"{key} = {value!r}".replace("'", '"') for key, value in settings.items())
    return "[suspects]\n" + "\n".join(lines) + "\n"


@fault(
    "the suspects' disk is full",
    Mode.GOES_ON,
    sees=("OK",),
    metric=FAILURES("put"),
    alert="GuardSuspectsDown",
    clears=True,
    needs=no_disk,
)
async def full(stage: Stage) -> AsyncIterator[None]:
    """Suspects wait in memory, and are kept once there is room."""
    small_disk(stage, "16m")
    await stage.gateway(more=keeping())
    await stage.calls()
    yield
    fill(stage)
    yield
    empty(stage)


@fault(
    "the suspects' disk is full, and so is what may wait",
    Mode.GOES_ON,
    sees=("OK",),
    metric=DROPPED("queue"),
    alert="GuardSuspectsLost",
    needs=no_disk,
)
async def queue(stage: Stage) -> AsyncIterator[None]:
    """Nobody waits for a suspect; those that find no place are counted."""
    small_disk(stage, "16m")
    await stage.gateway(more=keeping(max_queue=8))
    await stage.calls()
    yield
    fill(stage)
    await asyncio.sleep(0.5)
    yield
    empty(stage)
