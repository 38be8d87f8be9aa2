"""A small disk of its own, which a fault fills."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.faults.stage import Stage


def no_disk() -> str:
    """Why there is none; empty: there is."""
    able = os.geteuid() == 0 and shutil.which("mount") is not None
    return "" if able else "only root can mount a small disk"


def small_disk(stage: Stage, size: str) -> None:
    """Mount one at `disk`."""
    disk = stage.folder / "disk"
    disk.mkdir()
    options = ("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk))
    subprocess.run(["mount", *options], check=True)
    stage.callback(subprocess.run, ["umount", "--lazy", str(disk)], check=False)


def fill(stage: Stage) -> None:
    """Until nothing goes in any more."""
    with contextlib.suppress(OSError), _filler(stage).open("wb") as file:
        while True:
            file.write(b"x" * 4096)
            file.flush()


def empty(stage: Stage) -> None:
    """Make room again."""
    _filler(stage).unlink()


def _filler(stage: Stage) -> Path:
    return stage.folder / "disk" / "full"
