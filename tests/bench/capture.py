"""What keeping suspects costs: the same gateway with capture off and on.

python -m tests.bench.capture [--pack models/signs] [--pairs 12] [--seconds 3] [--callers 16]
                              [--budget 0.05] [--turns] [--folder FOLDER] [--json FILE]

Two `guard serve` processes stand side by side, alike but for `[suspects]`, each asked by a load
generator in a process of its own: both at the same moment, so that whatever else runs on the
machine holds up both alike; with --turns one after the other, in an order that changes from pair
to pair, which only a quiet machine makes sense of. The pictures are procedural signs, no two alike,
so that every alarm is a new suspect; the false-alarm budget is the alarm rate. The store is SQLite
and files in `--folder` (default: the system's folder for temporary files: no tmpfs, please).

A share is images per second with capture on over off, in one pair; CPU is what the gateway's
process used for an image, its writer included. Goal: a median share of 0.95.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guard.client import Client
from guard.data import signs
from guard.pack import Pack
from tests.bench.serving import measure_server, request_file, wait_for
from tests.end_to_end.peers import servers

BASE = 500  # signs, of which all pictures are made
TICKS = 100.0  # of CPU time a second (Linux)


@dataclass(frozen=True)
class Side:
    """One of the two gateways."""

    address: str
    pid: int

    def cpu(self) -> float:
        """Seconds of CPU that its process has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def counts(self) -> dict[str, int]:
        """Images and alarms so far."""
        with Client(self.address) as client:
            model = client.status().models[0]
            return {"images": int(model.images), "alarms": int(model.verdicts["flag"])}


def settings(folder: Path, pack: Path, budget: float, *, on: bool) -> tuple[Path, str]:
    """A settings file and the address in it."""
    port = servers.free_ports(1)[0]
    folder.mkdir()
    file = folder / "guard.toml"
    kept = '[suspects]\nfolder = "kept"\nkey_file = "keys/suspects"\n' if on else ""
    file.write_text(
        f'[gateway]\nlisten = "127.0.0.1:{port}"\nmetrics = ""\n{kept}[[models]]\n'
        f'name = "{pack.name}"\npack = "{pack.resolve()}"\nanswer = "ensemble"\n'
        f"max_false_positive_rate = {budget}\n"
    )
    return file, f"127.0.0.1:{port}"


@contextlib.contextmanager
def gateway(folder: Path, pack: Path, budget: float, *, on: bool) -> Iterator[Side]:
    """A gateway as a process."""
    file, address = settings(folder, pack, budget, on=on)
    command = [sys.executable, "-m", "guard", "serve", str(file)]
    process = subprocess.Popen(command, cwd=servers.ROOT, stdout=subprocess.DEVNULL)
    try:
        wait_for(address, process)
        yield Side(address, process.pid)
    finally:
        process.terminate()
        process.wait()


def pictures(base: NDArray[np.uint8], seed: int, count: int) -> NDArray[np.float32]:
    """Pictures (N, C, H, W) that nobody sent before: some of `base`, low bits changed."""
    rng = np.random.default_rng(seed)
    chosen = base[rng.integers(len(base), size=count)]
    flips = rng.integers(0, 2, chosen.shape, dtype=np.uint8) * (rng.random(chosen.shape) < 0.01)
    return (chosen ^ flips.astype(np.uint8)).astype(np.float32) / np.float32(255)


def turn(side: Side, requests: Path, callers: int, seconds: float) -> dict[str, float]:
    """One side asked for so long."""
    before, used = side.counts()["images"], side.cpu()
    result = measure_server(side.address, requests, callers, seconds)
    done = side.counts()["images"] - before
    return {**result, "cpu_ms": 1e3 * (side.cpu() - used) / done, "images": done}


def pair(
    sides: dict[str, Side], requests: Path, asked: argparse.Namespace, *, first: str
) -> dict[str, dict[str, float]]:
    """Both sides once: at the same moment, or `first` first."""
    order = sorted(sides, key=lambda side: side != first)
    with ThreadPoolExecutor(1 if asked.turns else 2) as threads:
        jobs = {
            name: threads.submit(turn, sides[name], requests, asked.callers, asked.seconds)
            for name in order
        }
        return {name: jobs[name].result() for name in sides}


def measure(asked: argparse.Namespace, work: Path) -> dict[str, Any]:
    """All pairs, and what they come to."""
    size = Pack.load(asked.pack).input_shape[1]
    base = (signs.make(BASE, seed=11, size=size).pixels() * 255).round().astype(np.uint8)
    pairs = []
    with contextlib.ExitStack() as stack:
        sides = {
            name: stack.enter_context(gateway(work / name, asked.pack, asked.budget, on=on))
            for name, on in {"off": False, "on": True}.items()
        }
        for number in range(-1, asked.pairs):  # the first warms both up
            count = asked.images or round(400 * (asked.seconds + 1))
            requests = request_file(work, asked.pack.name, pictures(base, number + 1, count))
            try:
                found = pair(sides, requests, asked, first="on" if number % 2 else "off")
            except subprocess.CalledProcessError:  # refused for want of room: too busy a moment
                print("a request was refused: this pair does not count", flush=True)
                continue
            if number >= 0:
                pairs.append(found)
                share = found["on"]["per_second"] / found["off"]["per_second"]
                rates = "  ".join(
                    f"{name} {of['per_second']:5.0f}/s {of['cpu_ms']:.2f} ms CPU"
                    for name, of in found.items()
                )
                print(f"{rates}  share {share:.3f}", flush=True)
        with Client(sides["on"].address) as client:
            kept = client.suspects.counts()
        totals = {name: side.counts() for name, side in sides.items()}
    return summary(pairs, totals, kept.total, asked)


def summary(
    pairs: list[dict[str, dict[str, float]]],
    totals: dict[str, dict[str, int]],
    kept: int,
    asked: argparse.Namespace,
) -> dict[str, Any]:
    """The figures that a document may quote."""
    shares = np.array([one["on"]["per_second"] / one["off"]["per_second"] for one in pairs])
    draws = np.random.default_rng(0).choice(shares, (2000, len(shares)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return {
        "pack": asked.pack.name,
        "pairs": len(pairs),
        "callers": asked.callers,
        "at_once": not asked.turns,
        "share_median": round(float(np.median(shares)), 3),
        "share_95_percent": [round(float(low), 3), round(float(high), 3)],
        **{
            f"{what}_{side}": round(median(one[side][what] for one in pairs), 3)
            for side in ("off", "on")
            for what in ("per_second", "p99_ms", "cpu_ms")
        },
        "cpu_share": round(median(one["off"]["cpu_ms"] / one["on"]["cpu_ms"] for one in pairs), 3),
        "alarm_rate": round(totals["on"]["alarms"] / totals["on"]["images"], 4),
        "alarms": totals["on"]["alarms"],
        "kept": kept,
    }


def main() -> None:
    """The pairs as they come, the figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pack", type=Path, default=servers.ROOT / "models" / "signs")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--images", type=int, default=0, help="in a turn; 0: 400 a second")
    parser.add_argument("--budget", type=float, default=0.05)
    parser.add_argument("--turns", action="store_true", help="one after the other")
    parser.add_argument("--folder", type=Path, help="where the store is made, and removed")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder, prefix=".bench-") as name:
        figures = measure(asked, Path(name))
    print(json.dumps(figures, indent=1))
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
