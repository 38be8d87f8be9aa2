"""The same targets under atheris: libFuzzer chooses the inputs by what of guard they reach.

Optional: `pip install atheris` (its wheels end at Python 3.11). Slower an input, but it finds what
lies behind comparisons that random changes do not pass.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.engine import Refused, Tally, judged, note
from tests.fuzz.mutate import LONGEST
from tests.fuzz.target import Finding
from tests.fuzz.targets import make


def fuzz(
    name: str,
    executions: int,
    seed: int,
    *,
    about_to: Callable[[bytes], None],
    progress: Callable[[Tally], None],
    finish: Callable[[Tally], None],
) -> None:
    """Run one target so many times, call `finish`, end the process: libFuzzer never returns."""
    import atheris

    with atheris.instrument_imports(include=["guard"]):
        target = make(name)
    tally, start = Tally(), time.monotonic()
    told = start

    def once(data: bytes) -> None:
        nonlocal told
        about_to(data)
        try:
            seen, seconds = judged(target, data)
            tally.slowest = max(tally.slowest, seconds)
            tally.accepted += not isinstance(seen, Refused)
            tally.seen.add(seen)
        except Finding as found:
            note(tally, target, found, data)
        tally.executions += 1
        now = time.monotonic()
        tally.seconds = now - start
        if tally.executions >= executions:
            finish(tally)
            os._exit(0)
        if now - told > 1:
            told = now
            progress(tally)

    with target, tempfile.TemporaryDirectory() as folder:
        for index, data in enumerate(target.corpus):
            (Path(folder) / str(index)).write_bytes(data)
        command = [
            sys.argv[0],
            f"-seed={seed + 1}",
            f"-max_len={LONGEST}",
            "-rss_limit_mb=0",
            folder,
        ]
        atheris.Setup(command, once)
        atheris.Fuzz()
