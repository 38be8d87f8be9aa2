"""A first run of a pack in a process that may fail: its golden vectors, against time and memory.

Shapes alone do not tell what a graph costs. The child gets the bytes that were verified through a
pipe; it opens no pack, has no network where the system allows that, and ends when its time is up.
"""

import json
import os
import resource
import socket
import subprocess  # nosec B404
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from guard import calibration
from guard.errors import PackError
from guard.pack import MANIFEST, Pack
from guard.pipeline import Pipeline
from guard.signing import strict
from guard.verdict import Policy

SECONDS = 60.0
MEMORY = 4 << 30  # bytes
MAX_SAID = 4096
# Before anything is imported: only a process of one thread may leave its network (unshare(2) with
# CLONE_NEWUSER and CLONE_NEWNET). Where the system forbids it, the run goes on and says so.
START = """
import ctypes, runpy
try:
    ctypes.CDLL(None).unshare(0x10000000 | 0x40000000)
except (OSError, AttributeError):
    pass
runpy.run_module("guard.proberun", run_name="__main__")
"""


@dataclass(frozen=True)
class Probe:
    """What a run showed: its seconds, the child's peak of memory in bytes, and its isolation."""

    seconds: float
    memory: int
    network: bool  # whether the child could have reached a network


def probe(pack: Pack, *, seconds: float = SECONDS, memory: int = MEMORY) -> Probe:
    """Load a verified pack in a child and run its golden vectors there.

    Raises PackError where that fails, takes longer than `seconds` or more than `memory` bytes.
    """
    started = time.monotonic()
    try:
        child = subprocess.Popen(  # noqa: S603  # nosec B603
            [sys.executable, "-c", START, str(seconds), str(memory)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            start_new_session=True, env=_environment(),
        )  # fmt: skip
    except OSError as error:
        raise PackError(f"{pack.folder}: no probe run can be started: {error}") from error
    try:
        said, _ = child.communicate(_packed(pack), timeout=seconds)
    except subprocess.TimeoutExpired:
        raise PackError(f"{pack.folder}: the probe run took more than {seconds:g} s") from None
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()
    try:
        told = strict.parse(said[:MAX_SAID])
        wrong, peak, network = str(told["error"]), int(told["memory"]), bool(told["network"])
    except (ValueError, KeyError, TypeError):
        raise PackError(
            f"{pack.folder}: the probe run ended with status {child.returncode}, "
            f"within {seconds:g} s and {memory >> 20} MiB"
        ) from None
    if wrong:
        raise PackError(f"{pack.folder}: the probe run failed: {wrong}")
    return Probe(time.monotonic() - started, peak, network)


# Digests of what ran well: a candidate is watched first and promoted later.
_ran: set[str] = set()


def probe_once(pack: Pack) -> None:
    """`probe`, where this process has not seen it succeed with this very pack."""
    if pack.digest not in _ran:
        probe(pack)
        _ran.add(pack.digest)


def main(seconds: str, memory: str) -> int:
    """The child: bounds itself, reads the pack from standard input, says how it went."""
    network = len(socket.if_nameindex()) > 1  # more than the loopback
    _bound(float(seconds), int(memory))
    error = ""
    try:
        pack = _unpacked(sys.stdin.buffer)
        Pipeline(
            pack,
            policy=Policy(max_false_positive_rate=0.5),
            calibrations=calibration.load(pack.files["calibration.npz"]),
            secret=b"a probe run",
            providers=["CPUExecutionProvider"],
            threads=1,
        )
    except MemoryError:
        error = f"it wants more than {int(memory) >> 20} MiB"
    except Exception as failure:  # whatever it is, the parent refuses the pack
        error = str(failure).replace("/nowhere: ", "")[:500] or type(failure).__name__
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sys.stdout.write(json.dumps({"error": error, "memory": peak, "network": network}))
    return 0


def _bound(seconds: float, memory: int) -> None:
    """Limits of this process."""
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _packed(pack: Pack) -> bytes:
    """One line of sizes and names, then the bytes."""
    files = {MANIFEST: json.dumps(pack.manifest).encode(), **pack.files}
    head = json.dumps({"digest": pack.digest, "sizes": {n: len(d) for n, d in files.items()}})
    return b"".join([head.encode(), b"\n", *files.values()])


def _unpacked(stream: IO[bytes]) -> Pack:
    head = json.loads(stream.readline())
    files = {name: stream.read(size) for name, size in head["sizes"].items()}
    manifest = json.loads(files.pop(MANIFEST))
    return Pack(Path("/nowhere"), manifest, files, head["digest"], False)


def _environment() -> dict[str, str]:
    """Where this package is, and nothing that could be a secret."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    source = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH", "")]))
    return {**kept, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
