"""Gateways stopped under load, one after the other: does a request fail?

python -m tests.bench.drain [--times 100] [--callers 16]

Two gateways, and a stock gRPC client that spreads its calls over both (round_robin) and watches
their health (healthCheckConfig); it never repeats a call. In turn each gets SIGTERM in the
middle of the load and is started again on the same port; the next is stopped once that one answers
requests again, as any rolling update waits. Every request takes 30 ms at the upstream
at least, so that many are under way whenever one stops. 1 when a request failed.
"""

import argparse
import asyncio
import contextlib
import re
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio
import numpy as np

from guard.testing import clean_images, make_pack
from tests.end_to_end.processes import (
    GATEWAY,
    UPSTREAM,
    Process,
    free_port,
    started,
    write_config,
)
from tests.gateway.wire import infer_request

METHOD = "/inference.GRPCInferenceService/ModelInfer"
SERVICE_CONFIG = (
    '{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}'
)


@dataclass
class Drained:
    """What happened. seconds: from SIGTERM to the process's end, of each stop."""

    codes: Counter[str] = field(default_factory=Counter)
    details: set[str] = field(default_factory=set)
    seconds: list[float] = field(default_factory=list)
    exits: Counter[int] = field(default_factory=Counter)

    @property
    def good(self) -> bool:
        """No request failed, and every gateway ended by itself."""
        return set(self.codes) == {"OK"} and set(self.exits) == {0}

    def __str__(self) -> str:
        p50, worst = np.percentile(self.seconds, [50, 100])
        return (
            f"{len(self.seconds)} stops under load, {self.codes.total():,} requests: "
            f"{self.codes['OK']:,} OK, {self.codes.total() - self.codes['OK']} failed "
            f"{dict(self.codes) if not self.good else ''}{sorted(self.details)[:3] or ''}; "
            f"stopped after {p50:.2f} s (median), {worst:.2f} s (longest); "
            f"exit codes {dict(self.exits)}"
        )


def drained(times: int, callers: int, folder: Path, *, delay: float = 0.03) -> Drained:
    """Stop a gateway so often, in turn, while so many callers ask."""
    pack, outcome = make_pack(folder / "tiny"), Drained()
    port = free_port()
    with contextlib.ExitStack() as stack:
        stack.enter_context(started(UPSTREAM, str(port), str(delay)))
        configs, pages = [], []
        for name in ("one", "two"):
            model = {"name": "model", "upstream": f"grpc://127.0.0.1:{port}"}
            listen, metrics = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
            file = folder / f"{name}.toml"
            configs.append(write_config(file, pack, model, listen=listen, metrics=metrics))
            pages.append(f"http://{metrics}/metrics")
        gateways = [Process(GATEWAY, str(config)) for config in configs]
        stack.callback(lambda: [gateway.kill() for gateway in gateways])
        asyncio.run(_drain(times, callers, configs, pages, gateways, outcome))
    return outcome


async def _drain(
    times: int,
    callers: int,
    configs: list[Path],
    pages: list[str],
    gateways: list[Process],
    outcome: Drained,
) -> None:
    target = "ipv4:" + ",".join(gateway.address for gateway in gateways)
    options = [
        ("grpc.service_config", SERVICE_CONFIG),
        ("grpc.enable_retries", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 200),
    ]
    over = asyncio.Event()
    async with grpc.aio.insecure_channel(target, options) as channel:
        asking = [asyncio.create_task(_ask(channel, over, outcome)) for _ in range(callers)]
        await asyncio.sleep(1.0)
        for turn in range(times):
            gateway = gateways[turn % 2]
            begun = time.monotonic()
            outcome.exits[await asyncio.to_thread(gateway.stop)] += 1
            outcome.seconds.append(time.monotonic() - begun)
            gateways[turn % 2] = await asyncio.to_thread(Process, GATEWAY, str(configs[turn % 2]))
            await asyncio.to_thread(_answers, pages[turn % 2])
            if sys.stderr.isatty():
                sys.stderr.write(f"\r{turn + 1}/{times} stops, {dict(outcome.codes)}")
        over.set()
        await asyncio.gather(*asking)


def _answers(page: str) -> None:
    """Returns when the gateway with this page has answered a request of the load."""
    while True:
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(page, timeout=5) as reply:  # noqa: S310 (our own)
                text = reply.read().decode()
            if re.search(r'^guard_requests_total{.*code="OK".*} [1-9]', text, re.MULTILINE):
                return
        time.sleep(0.05)


async def _ask(channel: grpc.aio.Channel, over: asyncio.Event, outcome: Drained) -> None:
    call = channel.unary_unary(METHOD)
    request = infer_request(clean_images([1]), model="model").SerializeToString()
    while not over.is_set():
        try:
            await call(request, timeout=20)
            outcome.codes["OK"] += 1
        except grpc.aio.AioRpcError as error:
            outcome.codes[error.code().name] += 1
            outcome.details.add(str(error.details())[:100])


def main() -> int:
    """Print what happened; 1 when a request failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.drain", description=__doc__)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--callers", type=int, default=16)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = drained(chosen.times, chosen.callers, Path(folder))
    print(outcome)
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
