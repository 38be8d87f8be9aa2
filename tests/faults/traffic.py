"""Clients that never stop asking, and what each of them saw."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, Self

import grpc
import grpc.aio

from guard.client import read_answer
from guard.gateway import protocol
from guard.testing import clean_images
from tests.gateway.wire import failure_of, infer_request

EVERY = 0.05  # seconds between two requests
AT_ONCE = 32
PATH = protocol.INFERENCE_METHODS["ModelInfer"].path
OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
]


class Sample(NamedTuple):
    """One request: when it began and ended, and what it saw.

    "OK" is an examined answer, "OK ABSTAIN" one that nobody examined; else status and reason.
    """

    began: float
    ended: float
    outcome: str


@dataclass
class Caller:
    """How clients call: where, with which credentials, metadata and options of gRPC."""

    address: str
    credentials: grpc.ChannelCredentials | None = None
    options: Sequence[tuple[str, Any]] = ()
    metadata: Sequence[tuple[str, str]] = ()
    fresh: bool = False  # a connection for every request
    timeout: float = 5.0
    path: str = PATH
    request: bytes = field(
        default_factory=lambda: infer_request(clean_images([0])).SerializeToString()
    )

    def channel(self) -> grpc.aio.Channel:
        """A new connection."""
        options = [*OPTIONS, *self.options]
        if self.credentials is None:
            return grpc.aio.insecure_channel(self.address, options)
        return grpc.aio.secure_channel(self.address, self.credentials, options)


class Traffic:
    """Requests at a steady pace for the length of an `async with`; `samples` is what they saw."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.samples: list[Sample] = []
        self._under_way: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._channel = self.caller.channel()
        self._pace = asyncio.create_task(self._ask_on())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pace.cancel()
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(self._pace, *self._under_way, return_exceptions=True)
        await self._channel.close()

    def since(self, moment: float) -> list[Sample]:
        """The finished requests that began after a moment, in the order they began."""
        return sorted(sample for sample in self.samples if sample.began >= moment)

    def outcomes(self, moment: float) -> Counter[str]:
        """What they saw, counted."""
        return Counter(sample.outcome for sample in self.since(moment))

    async def recovered(self, moment: float, *, count: int = 5) -> float:
        """Waits for the first of `count` good answers in a row; the seconds until it ended."""
        while True:
            for good, run in itertools.groupby(self.since(moment), lambda s: s.outcome == "OK"):
                found = list(run)
                if good and len(found) >= count:
                    return found[0].ended - moment
            await asyncio.sleep(EVERY)

    async def _ask_on(self) -> None:
        while True:
            if len(self._under_way) < AT_ONCE:
                task = asyncio.create_task(self._ask())
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
            await asyncio.sleep(EVERY)

    async def _ask(self) -> None:
        began, caller = time.monotonic(), self.caller
        channel = caller.channel() if caller.fresh else self._channel
        try:
            answer = await channel.unary_unary(caller.path)(
                caller.request, timeout=caller.timeout, metadata=tuple(caller.metadata)
            )
            outcome = _seen(answer) if caller.path == PATH else "OK"
        except grpc.aio.AioRpcError as error:
            outcome = " ".join(failure_of(error)[:2]).strip()
        finally:
            if caller.fresh:
                await channel.close()
        self.samples.append(Sample(began, time.monotonic(), outcome))


def _seen(data: bytes) -> str:
    answer = read_answer(protocol.ModelInferResponse.FromString(data))
    decision = str(answer.parameters.get("guard_decision", "UNEXAMINED"))
    return "OK" if decision == "ALLOW" else f"OK {decision}"
