"""An hour at 80% of what a gateway can do: does its memory grow, does it leak descriptors?

python -m tests.bench.soak [--minutes 60] [--share 0.8] [--pack models/signs] [--csv FILE]

A gateway with metrics (scraped every five seconds), audit log and limits on, and requests from an
open clock in another process. The slope of its resident memory is a least-squares line through the
samples after the warm-up (a sixth of the time). Neighbouring samples are alike, so the interval
comes from twenty block means, not from the samples. Goal: at most 10 MB an hour.
"""

import argparse
import csv
import io
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from guard.pack import Pack
from tests.bench.serving import measure_server, pictures, request_file
from tests.end_to_end.peers import servers
from tests.end_to_end.processes import GATEWAY, Process, free_port, started, write_config

EVERY = 5.0  # seconds between samples
CALLERS = 16
BLOCKS = 20
DEADLINE = "5"


class Sample(NamedTuple):
    """One look at the gateway's process."""

    seconds: float
    resident_bytes: int
    descriptors: int
    threads: int


def look(process: Process, begun: float) -> Sample:
    """What it holds now."""
    home = Path(f"/proc/{process.pid}")
    open_files, threads = (len(list((home / part).iterdir())) for part in ("fd", "task"))
    return Sample(time.monotonic() - begun, process.resident_bytes, open_files, threads)


def watch(
    process: Process, metrics: str, load: subprocess.Popen[bytes], file: Path
) -> Iterator[Sample]:
    """Samples until the load has ended, each written to the file as it comes."""
    begun = time.monotonic()
    with file.open("w", newline="") as table:
        rows = csv.writer(table)
        rows.writerow(Sample._fields)
        while load.poll() is None:
            with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=10) as page:
                page.read()
            sample = look(process, begun)
            rows.writerow(sample)
            table.flush()
            yield sample
            time.sleep(EVERY)


def slope(samples: list[Sample]) -> tuple[float, float, float]:
    """MB an hour, and its 95% interval, from block means."""
    blocks = np.array_split(np.array([(s.seconds, s.resident_bytes) for s in samples]), BLOCKS)
    means = np.array([block.mean(axis=0) for block in blocks if len(block)])
    line = stats.linregress(means[:, 0] / 3600, means[:, 1] / 2**20)
    wide = stats.t.ppf(0.975, len(means) - 2) * line.stderr
    return float(line.slope), float(line.slope - wide), float(line.slope + wide)


def soak(pack: Path, minutes: float, share: float, folder: Path, file: Path) -> str:
    """One line of figures; the samples go to the file."""
    metrics = f"127.0.0.1:{free_port()}"
    config = write_config(
        folder / "guard.toml",
        pack.resolve(),
        {"name": "model", "answer": "ensemble"},
        metrics=metrics,
        max_connection_age=1e6,  # the load's connections are for ever
        audit={"folder": str(folder / "audit"), "key_file": str(folder / "audit.key")},
        limits={"images_per_second": 1e6, "images_per_day": 10**9},
    )
    requests = request_file(folder, "model", pictures(Pack.load(pack).input_shape))
    with started(GATEWAY, str(config)) as process:
        capacity = measure_server(process.address, requests, CALLERS, 20)["per_second"]
        rate, seconds = share * capacity, 60 * minutes
        command = [sys.executable, "-m", "tests.bench.arrivals", process.address, str(requests)]
        with (folder / "rows.npy").open("wb") as rows:
            load = subprocess.Popen(
                [*command, DEADLINE, f"{rate}:{seconds}"], cwd=servers.ROOT, stdout=rows
            )
            samples = list(watch(process, metrics, load, file))
    if load.returncode:
        raise SystemExit(f"the load ended with {load.returncode}; the samples are in {file}")
    answers = np.load(io.BytesIO((folder / "rows.npy").read_bytes()))
    good = answers[:, 4] == 0
    p50, p99 = np.percentile(answers[good, 3], [50, 99]) * 1e3
    late = [sample for sample in samples if sample.seconds > seconds / 6]
    middle, low, high = slope(late)
    files, threads = (sorted({getattr(s, f) for s in late}) for f in ("descriptors", "threads"))
    return (
        f"{minutes:g} minutes at {share:.0%} of {capacity:.0f} requests/s: {len(answers):,} "
        f"requests, {100 * good.mean():.3f}% OK, p50 {p50:.1f} ms, p99 {p99:.0f} ms; RSS "
        f"{late[0].resident_bytes / 2**20:.0f} MB after the warm-up, "
        f"{late[-1].resident_bytes / 2**20:.0f} MB at the end, slope {middle:+.1f} MB/h "
        f"(95% {low:+.1f} to {high:+.1f}); descriptors {files[0]} to {files[-1]}, threads "
        f"{threads[0]} to {threads[-1]}"
    )


def main() -> None:
    """Print the line; the samples go to --csv."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--share", type=float, default=0.8)
    parser.add_argument("--pack", type=Path, default=Path("models/signs"))
    parser.add_argument("--csv", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = chosen.csv or Path(folder) / "samples.csv"
        print(soak(chosen.pack, chosen.minutes, chosen.share, Path(folder), file))


if __name__ == "__main__":
    main()
