"""What one fault plays on: gateways as processes, their clients, a Prometheus that watches."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from guard.testing import FakeUpstream
from tests.end_to_end.peers.servers import ROOT, free_ports
from tests.end_to_end.processes import write_config
from tests.faults.prometheus import Prometheus, Target
from tests.faults.traffic import Caller, Traffic

START_SECONDS = 30.0
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


class Gateway:
    """`guard serve` in a process of its own, on the same ports every time it starts."""

    def __init__(self, config: Path, ports: tuple[int, int], *, breakable: bool) -> None:
        self.config, self.port, self.metrics_port = config, *ports
        module = ("tests.faults.breaks",) if breakable else ("guard", "serve")
        self._command = (sys.executable, "-m", *module, str(config))
        self._environment: dict[str, str] = {}

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    async def start(self, **environment: str) -> None:
        """Start, and wait until it says that it serves."""
        line = await self._launch(environment)
        assert " on " in line, f"it did not start: {line or self.complaint()}"

    async def refuses(self) -> str:
        """A start that must fail: the one line that it leaves behind."""
        line = await self._launch({})
        assert not line, f"it started: {line}"
        assert await self._process.wait() == 1
        return self.complaint()

    async def _launch(self, environment: Mapping[str, str]) -> str:
        pipe = asyncio.subprocess.PIPE
        with self.config.with_suffix(".log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=pipe,
                stdout=pipe,
                stderr=log,
                cwd=self.config.parent,
                env={**os.environ, **ENVIRONMENT, **environment},
            )
        return await self._line()

    async def _line(self) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            return (await self._process.stdout.readline()).decode().strip()

    def complaint(self) -> str:
        """The last line of its standard error."""
        lines = self.config.with_suffix(".log").read_text().strip().splitlines()
        return lines[-1] if lines else ""

    async def say(self, word: str) -> None:
        """One of the words of `breaks.py`."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n".encode())
        assert await self._line() == word

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    async def gone(self) -> int:
        """Waits for its end; the exit status."""
        async with asyncio.timeout(START_SECONDS):
            return await self._process.wait()

    async def kill(self) -> None:
        """kill -9, whether it still runs or not."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


class Stage(contextlib.AsyncExitStack):
    """Starts what a fault needs and ends it afterwards."""

    def __init__(self, folder: Path, pack: Path) -> None:
        super().__init__()
        self.folder, self.pack = folder, pack
        self.gateways: dict[str, Gateway] = {}
        self.scrape: Mapping[str, Any] = {}
        self.traffic: Traffic
        self.prometheus: Prometheus

    async def upstream(self, **options: Any) -> FakeUpstream:
        """A model server that can be spoiled."""
        return await self.enter_async_context(FakeUpstream(**options))

    async def gateway(
        self,
        name: str = "a",
        *,
        breakable: bool = False,
        model: Mapping[str, Any] | None = None,
        more: str = "",
        **settings: Any,
    ) -> Gateway:
        """One gateway before the ensemble or, with `upstream` in `model`, a server.

        breakable: it takes words. more: further TOML. Other settings are of `[gateway]`.
        """
        ports = free_ports(2)
        addresses = {f: f"127.0.0.1:{p}" for f, p in zip(("listen", "metrics"), ports, strict=True)}
        chosen = {"name": "tiny", **(model or {})}
        if "upstream" not in chosen:
            chosen["answer"] = "ensemble"
        path = self.folder / f"{name}.toml"
        write_config(path, self.pack, chosen, **addresses, **settings)
        with path.open("a") as file:
            file.write(more)
        gateway = Gateway(path, (ports[0], ports[1]), breakable=breakable)
        self.gateways[name] = gateway
        await gateway.start()
        self.push_async_callback(self._end, gateway)
        return gateway

    async def _end(self, gateway: Gateway) -> None:
        await gateway.kill()

    async def watch(self, caller: Caller | None = None) -> None:
        """Traffic, and a Prometheus over all gateways."""
        first = next(iter(self.gateways.values()))
        self.traffic = await self.enter_async_context(Traffic(caller or Caller(first.address)))
        targets = {n: Target(g.metrics_port, self.scrape) for n, g in self.gateways.items()}
        self.prometheus = self.enter_context(Prometheus(self.folder, targets))

    async def until(self, condition: Callable[[], bool], seconds: float = 20) -> float:
        """Waits for a condition; how long that took."""
        began = time.monotonic()
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.02)
        return time.monotonic() - began
