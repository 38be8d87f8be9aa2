"""The Redis in which replicas count their callers together."""

import asyncio
import contextlib
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from typing import Any

from tests.end_to_end.peers.servers import free_ports
from tests.faults.frame import Mode, Play, fault
from tests.faults.proxy import Proxy
from tests.faults.stage import Stage

FAILURES = 'guard_shared_limits_failures_total{{reason="{}"}}'.format
ALERT = "GuardLimitsLocal"
PLENTY = {"images_per_second": 1000.0, "burst": 1000, "replicas": 2}


def _no_redis() -> str:
    return "" if shutil.which("redis-server") else "no redis-server: deploy/ci/install services"


class Redis:
    """A redis-server that is killed and started again on the same port."""

    def __init__(self, stage: Stage) -> None:
        self.port = free_ports(1)[0]
        self._folder = stage.folder

    async def __aenter__(self) -> "Redis":
        options = ("--save", "", "--bind", "127.0.0.1", "--dir", str(self._folder))
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["redis-server", "--port", str(self.port), *options], stdout=log, stderr=log
            )
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return self
            await asyncio.sleep(0.05)

    async def __aexit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)


def down(**limits: Any) -> Play:
    """Redis is killed, and started again without what it knew."""

    async def play(stage: Stage) -> AsyncIterator[None]:
        redis = await stage.enter_async_context(Redis(stage))
        await stage.gateway(limits={**limits, "redis": f"redis://127.0.0.1:{redis.port}"})
        yield
        await redis.__aexit__()
        yield
        await redis.__aenter__()

    play.__module__ = __name__
    return play


fault(
    "Redis is down", Mode.GOES_ON, sees=("OK",), metric=FAILURES("connection"), alert=ALERT,
    clears=True, needs=_no_redis, quick=True,
)(down(**PLENTY))  # fmt: skip
fault(
    "Redis is down, callers at their limit", Mode.PARTLY,
    sees=("RESOURCE_EXHAUSTED RATE_LIMITED", "OK"),
    metric='guard_errors_total{reason="rate_limited"}', alert=ALERT, clears=True, needs=_no_redis,
)(down(images_per_second=30.0, burst=30, replicas=3))  # fmt: skip


@fault(
    "Redis hangs (SIGSTOP)",
    Mode.GOES_ON,
    sees=("OK",),
    metric=FAILURES("timeout"),
    alert=ALERT,
    clears=True,
    needs=_no_redis,
)
async def hangs(stage: Stage) -> AsyncIterator[None]:
    """One request waits for redis_timeout, those after it for nothing."""
    redis = await stage.enter_async_context(Redis(stage))
    await stage.gateway(limits={**PLENTY, "redis": f"redis://127.0.0.1:{redis.port}"})
    yield
    redis.signal(signal.SIGSTOP)
    yield
    redis.signal(signal.SIGCONT)


@fault(
    "Redis answers garbage",
    Mode.GOES_ON,
    sees=("OK",),
    metric="guard_shared_limits_failures_total",
    alert=ALERT,
    clears=True,
    needs=_no_redis,
)
async def garbage(stage: Stage) -> AsyncIterator[None]:
    """What makes no sense is no answer."""
    redis = await stage.enter_async_context(Redis(stage))
    proxy = await stage.enter_async_context(Proxy(redis.port))
    await stage.gateway(limits={**PLENTY, "redis": f"redis://127.0.0.1:{proxy.port}"})
    yield
    proxy.go("garble")
    yield
    proxy.go("through")
