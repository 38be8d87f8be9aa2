"""What counting costs a request: here, and in a Redis on this machine.

python -m tests.bench.limits [--requests 20000] [--callers 1000]

local    one decision of `LocalCounts`, callers in turn
redis    one decision of `SharedCounts`, one at a time: the latency that a request sees; and 32 at a
         time: decisions a second. Needs redis-server (deploy/ci/install services).
"""

import argparse
import asyncio
import shutil
import subprocess
import time

import numpy as np

from guard.config.limits import Limits
from guard.gateway.limits import Allowance, LocalCounts
from guard.gateway.redis_counts import SharedCounts
from tests.end_to_end.peers import servers

ALLOWANCE = Allowance(1e6, 1_000_000, 1_000_000_000)
AT_ONCE = 32


def local(requests: int, keys: list[bytes]) -> float:
    """Microseconds for one decision."""
    counts = LocalCounts(len(keys))
    start = time.perf_counter()
    for number in range(requests):
        counts.take_now(keys[number % len(keys)], ALLOWANCE, 1)
    return (time.perf_counter() - start) / requests * 1e6


async def shared(url: str, requests: int, keys: list[bytes]) -> dict[str, float]:
    """Latency of one after the other, and how many a second 32 get."""
    limits = Limits(redis=url, redis_timeout=1.0)
    counts = SharedCounts(limits, LocalCounts(limits.max_callers))
    await counts.start()
    took = []
    for number in range(requests // 4):
        start = time.perf_counter()
        await counts.take(keys[number % len(keys)], ALLOWANCE, 1)
        took.append(time.perf_counter() - start)
    begin, cpu = time.perf_counter(), time.process_time()

    async def some(first: int) -> None:
        for number in range(first, requests, AT_ONCE):
            await counts.take(keys[number % len(keys)], ALLOWANCE, 1)

    await asyncio.gather(*(some(first) for first in range(AT_ONCE)))
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    await counts.close()
    p50, p99 = np.percentile(took, [50, 99]) * 1e3
    return {
        "redis p50, ms": float(p50),
        "redis p99, ms": float(p99),
        "redis decisions a second": requests / seconds,
        "redis CPU of the gateway, us": cpu / requests * 1e6,
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--callers", type=int, default=1000)
    asked = parser.parse_args()
    keys = [b"\0" + number.to_bytes(16, "big") for number in range(asked.callers)]
    print(f"{'local, us':32}{local(asked.requests, keys):10.2f}")
    if shutil.which("redis-server") is None:
        print("redis: no redis-server here (deploy/ci/install services)")
        return
    (port,) = servers.free_ports(1)
    command = ["redis-server", "--port", str(port), "--save", "", "--daemonize", "no"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        found = asyncio.run(shared(f"redis://127.0.0.1:{port}/0", asked.requests, keys))
    finally:
        process.terminate()
        process.wait()
    for name, value in found.items():
        print(f"{name:32}{value:10.2f}")


if __name__ == "__main__":
    main()
