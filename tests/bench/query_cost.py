"""What watching traffic costs: time and memory of a query, at a long history.

python -m tests.bench.query_cost [--remembered 100000] [--queries 500] [--size 32]

The memory is filled with features drawn at random, then procedural signs under fresh noise are
looked at one by one. Resident memory is read after a hundredth of them and at the end: with
--queries 1000000 it says whether it stays flat.
"""

import argparse
import gc
import time
from pathlib import Path

import numpy as np

from guard.calibration import Calibration
from guard.data import signs
from guard.traffic.callers import Callers
from guard.traffic.features import HASHES, Features, Seen
from guard.traffic.memory import Reach
from guard.traffic.queries import QueryWatch
from guard.traffic.shift import TrafficShift

SIGNS = 500


def filled(remembered: int, shape: tuple[int, int, int]) -> QueryWatch:
    """A watch that remembers so many queries."""
    random = np.random.default_rng(0)
    watch = QueryWatch(shape, secret=b"cost" * 8, reach=Reach(0.12, 0.08), capacity=remembered)
    dimensions = Features(shape, b"cost" * 8).dimensions
    for number in range(remembered):
        hashes = random.integers(1, 1 << 62, (1, HASHES)).astype(np.uint64)
        both = (0.3 * random.standard_normal((2, 1, dimensions))).astype(np.float32)
        watch.memory.add(Seen(hashes[:, 0], hashes, *both), 0, -number - 1, time.monotonic())
    return watch


def drift(images: np.ndarray) -> list[float]:  # type: ignore[type-arg]
    """Seconds for each picture (N, C, H, W), once the first ones are learned."""
    random = np.random.default_rng(2)
    scores = np.sort(random.random((4000, 1)).astype(np.float32), axis=0)
    entry = Calibration(("detector",), scores)
    shift = TrafficShift(entry, risk=0.001, tolerance=0.25, reference=200)
    callers = Callers(entry, most=1000, risk=0.001, tolerance=0.25)
    shift.see(random.random(200).astype(np.float32), images[:200])
    times = []
    for number, image in enumerate(images[200:]):
        p_value = random.random(1).astype(np.float32)
        start = time.perf_counter()
        callers.see(f"caller {number % 10}", p_value[shift.see(p_value, image[None])])
        times.append(time.perf_counter() - start)
    return times


def main() -> None:
    """Print two lines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--remembered", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--size", type=int, default=32)
    asked = parser.parse_args()
    shape = (3, asked.size, asked.size)
    watch = filled(asked.remembered, shape)
    images = signs.make(SIGNS, seed=0, size=asked.size).pixels()
    random = np.random.default_rng(1)
    times, early = np.zeros(asked.queries), 0.0
    for number in range(asked.queries):
        noise = random.uniform(-0.3, 0.3, shape).astype(np.float32)
        image = np.clip(images[number % SIGNS] + noise, 0, 1)
        start = time.perf_counter()
        watch.look(image[None])
        times[number] = time.perf_counter() - start
        if number == asked.queries // 100:
            early = resident()
    p50, p99 = np.percentile(times, [50, 99]) * 1e3
    print(
        f"{asked.remembered:,} remembered: p50 {p50:.2f} ms, p99 {p99:.2f} ms a query, "
        f"{watch.memory.bytes / asked.remembered:.0f} bytes a query; resident {early:.0f} MB "
        f"early, {resident():.0f} MB after {asked.queries:,} queries"
    )
    noise = random.uniform(-0.3, 0.3, (2 * SIGNS, *shape)).astype(np.float32)
    times = np.array(drift(np.clip(np.concatenate([images, images]) + noise, 0, 1)))
    p50, p99 = np.percentile(times, [50, 99]) * 1e3
    print(f"drift: p50 {p50:.2f} ms, p99 {p99:.2f} ms, mean {1e3 * times.mean():.2f} ms a picture")


def resident() -> float:
    """Megabytes of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


if __name__ == "__main__":
    main()
