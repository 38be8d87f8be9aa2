"""A gateway process under hostile connections, and one healthy client that goes on asking."""

import asyncio
import itertools
import os
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np

from guard.config import Gateway
from guard.pack import Pack
from tests.abuse.attackers import ATTACKERS, INFER
from tests.end_to_end.processes import GATEWAY, Process, free_port, started, write_config
from tests.gateway.wire import infer_request

SAMPLE_SECONDS = 0.25
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Outcome:
    """What a siege did. Seconds, bytes, requests."""

    attack: str
    connections: int = 0
    codes: Counter[str] = field(default_factory=Counter)  # of the healthy client
    details: Counter[str] = field(default_factory=Counter)  # what its refusals said
    latencies: list[float] = field(default_factory=list)
    most_in_flight: float = 0.0
    limit: int = 0
    resident: tuple[int, int, int] = (0, 0, 0)  # before, peak, after
    cpu_seconds: float = 0.0
    descriptors: tuple[int, int] = (0, 0)  # before, after

    @property
    def ok(self) -> float:
        """The share of the healthy client's requests that were answered."""
        return self.codes["OK"] / max(1, self.codes.total())

    def row(self) -> str:
        """One line of the table."""
        p50, p99 = np.percentile(self.latencies or [np.nan], [50, 99]) * 1e3
        before, peak, after = (round(size / 2**20) for size in self.resident)
        return (
            f"| {self.attack} | {self.connections:,} | {self.codes.total():,} | "
            f"{100 * self.ok:.2f} | {p50:.0f} / {p99:.0f} | {self.most_in_flight:.0f} of "
            f"{self.limit} | {before} / {peak} / {after} | {self.cpu_seconds:.1f} | "
            f"{self.descriptors[0]} / {self.descriptors[1]} | {dict(self.details) or '-'} |"
        )


HEAD = (
    "| attack | connections made | healthy requests | % OK | p50 / p99 ms | most in flight | "
    "RSS before / peak / after MB | CPU s | descriptors before / after | not OK |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
)


def besiege(
    pack: Path,
    attacks: Sequence[str],
    *,
    connections: int,
    seconds: float,
    rate: float,
    **gateway: Any,
) -> Outcome:
    """Attack a fresh gateway for `seconds` with so many hostile connections, shared in turn.

    rate: requests a second of the healthy client, each with a deadline of 5 s.
    """
    name = attacks[0] if len(attacks) == 1 else "all at once"
    with tempfile.TemporaryDirectory() as folder:
        metrics = f"127.0.0.1:{free_port()}"
        config = write_config(
            Path(folder) / "guard.toml",
            pack.resolve(),
            {"name": "model", "answer": "ensemble"},
            metrics=metrics,
            **gateway,
        )
        with started(GATEWAY, str(config)) as process:
            outcome = Outcome(name, limit=gateway.get("max_in_flight", Gateway().max_in_flight))
            watched = Watch(process, metrics, outcome)
            image = np.full((1, *Pack.load(pack).input_shape), 0.5, np.float32)
            asyncio.run(_siege(watched, attacks, connections, seconds, rate, image))
            return outcome


class Watch:
    """Samples what the gateway's process holds and does."""

    def __init__(self, process: Process, metrics: str, outcome: Outcome) -> None:
        self.process, self.outcome = process, outcome
        self._url = f"http://{metrics}/metrics"

    def in_flight(self) -> float:
        """Inference requests being worked on, as the gateway's metric says."""
        with urllib.request.urlopen(self._url, timeout=5) as page:  # noqa: S310 (our own)
            lines = page.read().decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("guard_in_flight "))

    def cpu(self) -> float:
        """CPU seconds so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def descriptors(self) -> int:
        """Open files and sockets."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    async def sample(self, until: float) -> int:
        """The most resident bytes and requests in flight until then."""
        peak = 0
        while time.monotonic() < until:
            peak = max(peak, self.process.resident_bytes)
            flying = await asyncio.to_thread(self.in_flight)
            self.outcome.most_in_flight = max(self.outcome.most_in_flight, flying)
            await asyncio.sleep(SAMPLE_SECONDS)
        return peak


async def _siege(
    watch: Watch,
    attacks: Sequence[str],
    connections: int,
    seconds: float,
    rate: float,
    image: np.ndarray[Any, Any],
) -> None:
    outcome, address = watch.outcome, watch.process.address
    request = infer_request(image, model="model").SerializeToString()
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(INFER)
        for _ in range(5):
            await call(request, timeout=30)  # warm
        before, cpu = watch.process.resident_bytes, watch.cpu()
        descriptors = watch.descriptors()
        until = time.monotonic() + seconds
        chosen = itertools.islice(itertools.cycle(attacks), connections)
        peak, _, *made = await asyncio.gather(
            watch.sample(until),
            _ask(call, request, rate, until, outcome),
            *(ATTACKERS[attack](address, request, until) for attack in chosen),
        )
        outcome.connections = sum(made)
        outcome.cpu_seconds = watch.cpu() - cpu
        await asyncio.sleep(2.5)  # the watch gives memory back once a second
        await call(request, timeout=30)
        outcome.resident = (before, peak, watch.process.resident_bytes)
        outcome.descriptors = (descriptors, watch.descriptors())


async def _ask(call: Any, request: bytes, rate: float, until: float, outcome: Outcome) -> None:
    """Ask on a fixed schedule; latency counts from the moment that a request was due."""

    async def one(due: float) -> None:
        try:
            await call(request, timeout=5)
            outcome.codes["OK"] += 1
            outcome.latencies.append(time.monotonic() - due)
        except grpc.aio.AioRpcError as error:
            outcome.codes[error.code().name] += 1
            outcome.details[str(error.details())[:80]] += 1

    tasks, due = [], time.monotonic()
    while due < until:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        tasks.append(asyncio.create_task(one(due)))
        due += 1 / rate
    await asyncio.gather(*tasks)
