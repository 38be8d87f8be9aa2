"""`guard serve` in a process of its own: started, broken, killed, started again."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.end_to_end.peers.servers import ROOT

START_SECONDS = 90.0
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


class Gateway:
    """A gateway by its settings file, on the same ports every time it starts.

    breakable: with the words of `breaks.py` on its standard input.
    """

    def __init__(
        self, config: Path, address: str, *, breakable: bool, environment: Mapping[str, str]
    ) -> None:
        self.config, self.address = config, address
        module = ("tests.faults.breaks",) if breakable else ("guard", "serve")
        self._command = (sys.executable, "-m", *module, str(config))
        self._environment = {**os.environ, **ENVIRONMENT, **environment}
        self._log = config.with_suffix(".log")

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    async def start(self) -> None:
        """Start, and wait until it says that it serves."""
        line = await self._launch()
        assert " on " in line, f"it did not start: {line or self.complaint()}"

    async def refuses(self) -> str:
        """A start that must fail: the one line that it leaves behind."""
        line = await self._launch()
        assert not line, f"it started: {line}"
        assert await self.gone() in (1, 2), self.complaint()
        assert "Traceback" not in self._log.read_text()
        return self.complaint()

    async def _launch(self) -> str:
        pipe = asyncio.subprocess.PIPE
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=pipe,
                stdout=pipe,
                stderr=log,
                cwd=self.config.parent,
                env=self._environment,
            )
        return await self._line()

    async def _line(self) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            return (await self._process.stdout.readline()).decode().strip()

    def complaint(self) -> str:
        """The last line of its standard error."""
        lines = self._log.read_text().strip().splitlines()
        return lines[-1] if lines else ""

    async def say(self, word: str, *, answered: bool = True) -> None:
        """One of the words of `breaks.py`, or "mend"; some leave it unable to answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n".encode())
        if answered:
            assert await self._line() == word, self.complaint()

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
        await self.gone()
