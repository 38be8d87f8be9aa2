"""A gateway like `guard serve`, whose parts break by a word on its standard input.

python -m tests.faults.breaks guard.toml
"""

import asyncio
import contextlib
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from guard.config import load_config
from guard.gateway.server import Running, running

Arrays = Mapping[str, Any]
Undo = Callable[[], None]
MENDED = threading.Event()
SLOW_SECONDS = 2.0


class Spoiled:
    """A session whose outputs are spoiled by `change`."""

    def __init__(self, session: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self._session, self._change = session, change
        self.inputs, self.outputs, self.provider = session.inputs, session.outputs, session.provider

    def run(self, feeds: Arrays, outputs: Iterable[str] | None = None) -> dict[str, Any]:
        """What the session says, spoiled."""
        return self._change(self._session.run(feeds, outputs))


def _not_a_number(outputs: dict[str, Any]) -> dict[str, Any]:
    return {name: np.full_like(array, np.nan) for name, array in outputs.items()}


def _member_not_a_number(outputs: dict[str, Any]) -> dict[str, Any]:
    return {**outputs, "probabilities": np.full_like(outputs["probabilities"], np.inf)}


def _raising(_outputs: dict[str, Any]) -> dict[str, Any]:
    raise RuntimeError("/models/member.onnx: bad allocation")


def _too_few_rows(outputs: dict[str, Any]) -> dict[str, Any]:
    return {name: array[:, :-1] for name, array in outputs.items()}


def _hanging(outputs: dict[str, Any]) -> dict[str, Any]:
    MENDED.wait()
    return outputs


def _slow(outputs: dict[str, Any]) -> dict[str, Any]:
    time.sleep(SLOW_SECONDS)
    return outputs


def spoiling(part: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """Breaks a session of the pipeline."""

    def spoil(gateway: Running) -> Undo:
        pipeline = gateway.servicer.models["tiny"].pipeline
        whole = getattr(pipeline, part)
        setattr(pipeline, part, Spoiled(whole, change))
        return lambda: setattr(pipeline, part, whole)

    return spoil


def embedded(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """Breaks the session of an embedded upstream."""

    def spoil(gateway: Running) -> Undo:
        upstream: Any = gateway.servicer.models["tiny"].upstream
        whole = upstream.session
        upstream.session = Spoiled(whole, change)
        return lambda: setattr(upstream, "session", whole)

    return spoil


def disk_hangs(_gateway: Running) -> Undo:
    """Nothing becomes durable until it is mended."""
    whole = os.fdatasync

    def wait(descriptor: int) -> None:
        MENDED.wait()
        whole(descriptor)

    os.fdatasync = wait
    return lambda: setattr(os, "fdatasync", whole)


def memory_runs_out(_gateway: Running) -> Undo:
    """The process may have no more memory than now, and all of that is used."""
    whole = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (8 << 20), whole[1]))
    hog: list[bytearray] = []
    for size in (1 << 20, 1 << 14, 1 << 10):
        with contextlib.suppress(MemoryError):
            while True:
                hog.append(bytearray(size))

    def free() -> None:
        hog.clear()
        resource.setrlimit(resource.RLIMIT_AS, whole)

    return free


BREAKS: dict[str, Callable[[Running], Undo]] = {
    "detector-nan": spoiling("_detector", _not_a_number),
    "detector-raises": spoiling("_detector", _raising),
    "member-inf": spoiling("_graph", _member_not_a_number),
    "member-raises": spoiling("_graph", _raising),
    "evidence-shape": spoiling("_graph", _too_few_rows),
    "evidence-hangs": spoiling("_graph", _hanging),
    "evidence-slow": spoiling("_graph", _slow),
    "embedded-raises": embedded(_raising),
    "embedded-hangs": embedded(_hanging),
    "disk-hangs": disk_hangs,
    "memory-runs-out": memory_runs_out,
}


async def _main(path: str) -> None:
    lines = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(lines)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    undo: list[Undo] = []
    async with running(load_config(path)) as gateway:
        _say(str(gateway))
        while word := (await lines.readline()).decode().strip():
            if word == "mend":
                MENDED.set()
                while undo:
                    undo.pop()()
            else:
                MENDED.clear()
                undo.append(BREAKS[word](gateway))
            _say(word)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
