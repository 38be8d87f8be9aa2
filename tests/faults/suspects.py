"""The store of suspects fails: clients must not see any of it."""

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from typing import Any

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


def _no_disk() -> str:
    able = os.geteuid() == 0 and shutil.which("mount") is not None
    return "" if able else "only root can mount a small disk"


def _small_disk(stage: Stage) -> None:
    disk = stage.folder / "disk"
    disk.mkdir()
    options = ("-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk))
    subprocess.run(["mount", *options], check=True)
    stage.callback(subprocess.run, ["umount", "--lazy", str(disk)], check=False)


def _fill(stage: Stage) -> None:
    with contextlib.suppress(OSError), (stage.folder / "disk" / "full").open("wb") as file:
        while True:
            file.write(b"x" * 4096)
            file.flush()


@fault(
    "the suspects' disk is full",
    Mode.GOES_ON,
    sees=("OK",),
    metric=FAILURES("put"),
    alert="GuardSuspectsDown",
    clears=True,
    needs=_no_disk,
)
async def full(stage: Stage) -> AsyncIterator[None]:
    """Suspects wait in memory, and are kept once there is room."""
    _small_disk(stage)
    await stage.gateway(more=keeping())
    await stage.calls()
    yield
    _fill(stage)
    yield
    (stage.folder / "disk" / "full").unlink()


@fault(
    "the suspects' disk is full, and so is what may wait",
    Mode.GOES_ON,
    sees=("OK",),
    metric=DROPPED("queue"),
    alert="GuardSuspectsLost",
    needs=_no_disk,
)
async def queue(stage: Stage) -> AsyncIterator[None]:
    """Nobody waits for a suspect; those that find no place are counted."""
    _small_disk(stage)
    await stage.gateway(more=keeping(max_queue=8))
    await stage.calls()
    yield
    _fill(stage)
    await asyncio.sleep(0.5)
    yield
    (stage.folder / "disk" / "full").unlink()
