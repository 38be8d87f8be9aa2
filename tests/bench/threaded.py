"""A gateway in a thread of this process."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from guard.client import Client
from guard.config import Config
from guard.gateway.server import running


@contextlib.contextmanager
def served(config: Config) -> Iterator[Client]:
    """A client of a gateway with these settings, which ends with the `with`."""
    address: list[str] = []
    ready, done = threading.Event(), threading.Event()

    async def serve() -> None:
        async with running(config) as here:
            address.append(here.address)
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    ready.wait()
    try:
        with Client(address[0]) as client:
            yield client
    finally:
        done.set()
        thread.join()
