"""A gateway before a fake upstream and a caller, started in one line and stopped afterwards."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY

from guard.gateway.guarded import GuardedModel
from guard.gateway.server import running
from guard.testing import FakeUpstream, gateway_config
from tests.gateway.wire import Caller

BLOCK = {"mode": "enforce", "on_flag": "block"}


class Setting:
    """A gateway before a fake upstream, and a caller."""

    def __init__(self, caller: Caller, upstream: FakeUpstream, model: GuardedModel) -> None:
        self.caller, self.upstream, self.model = caller, upstream, model


class Settings(AsyncExitStack):
    """Starts what a test needs and stops it afterwards."""

    async def start(
        self, pack: Path, fake: FakeUpstream | None = None, *, alone: bool = False, **settings: Any
    ) -> Setting:
        """One setting; `alone` leaves the upstream out, so that the ensemble answers."""
        upstream = await self.enter_async_context(fake or FakeUpstream())
        address = "" if alone else upstream.address
        config = gateway_config(pack, upstream=address, **settings)
        gateway = await self.enter_async_context(running(config))
        caller = await self.enter_async_context(Caller(gateway.address))
        return Setting(caller, upstream, gateway.servicer.models["tiny"])


def counted(name: str, **labels: str) -> float:
    """A metric's value."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def until(condition: Any, seconds: float = 5) -> None:
    """Returns as soon as the condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
