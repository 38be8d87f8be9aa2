"""Servers on a loopback port, in a thread with its own loop, for callers that wait."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

from guard.config import Config
from guard.gateway.server import running
from guard.testing import FakeUpstream, gateway_config


@contextmanager
def served(
    upstream: FakeUpstream | None, pack: Path | None = None, **settings: Any
) -> Iterator[str]:
    """HOST:PORT of the fake model server; with a pack, of a gateway before it or on its own."""

    async def start(stack: AsyncExitStack) -> str:
        address = ""
        if upstream is not None:
            await stack.enter_async_context(upstream)
            address = upstream.address
        if pack is None:
            return address.removeprefix("grpc://")
        config: Config = gateway_config(pack, upstream=address, **settings)
        return (await stack.enter_async_context(running(config))).address

    loop, stack = asyncio.new_event_loop(), AsyncExitStack()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(start(stack), loop).result(60)
    finally:
        asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
