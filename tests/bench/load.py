"""A closed loop of callers in a process of its own: requests per second and latencies as JSON.

python -m tests.bench.load HOST:PORT REQUESTS CONCURRENCY SECONDS

REQUESTS is a file of serialised ModelInferRequests, each after its length (8 bytes, little-endian).
Every caller sends one, waits for the answer and sends the next; the first second is not counted.
"""

import asyncio
import itertools
import json
import struct
import sys
import time
from pathlib import Path

import grpc.aio
import numpy as np

METHOD = "/inference.GRPCInferenceService/ModelInfer"
WARM_UP = 1.0
CALLERS_PER_CONNECTION = 8


def write_requests(file: Path, requests: list[bytes]) -> None:
    """The file that `main` reads."""
    file.write_bytes(b"".join(struct.pack("<Q", len(r)) + r for r in requests))


def read_requests(file: Path) -> list[bytes]:
    """The requests in a file of `write_requests`."""
    data, at, requests = file.read_bytes(), 0, []
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        requests.append(data[at + 8 : at + 8 + length])
        at += 8 + length
    return requests


async def measure(
    address: str, requests: list[bytes], concurrency: int, seconds: float
) -> dict[str, float]:
    """Ask for `seconds` after the warm-up; any failed call ends the run."""
    channels = [
        grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
        for _ in range(-(-concurrency // CALLERS_PER_CONNECTION))
    ]
    calls = itertools.cycle([channel.unary_unary(METHOD) for channel in channels])
    supply = itertools.cycle(requests)
    start = time.perf_counter() + WARM_UP
    latencies: list[float] = []

    async def caller() -> None:
        call = next(calls)
        while (begun := time.perf_counter()) < start + seconds:
            await call(next(supply), timeout=60)
            if begun >= start:
                latencies.append(time.perf_counter() - begun)

    await asyncio.gather(*(caller() for _ in range(concurrency)))
    elapsed = time.perf_counter() - start
    await asyncio.gather(*(channel.close() for channel in channels))
    p50, p99 = np.percentile(latencies, [50, 99]) * 1e3
    return {"per_second": len(latencies) / elapsed, "p50_ms": float(p50), "p99_ms": float(p99)}


def main(address: str, requests: str, concurrency: str, seconds: str) -> None:
    """Print the measurement."""
    found = read_requests(Path(requests))
    result = asyncio.run(measure(address, found, int(concurrency), float(seconds)))
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
