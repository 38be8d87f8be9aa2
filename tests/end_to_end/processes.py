"""Gateways and model servers in processes of their own, which can be killed and measured."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GATEWAY = """
import sys
from guard.config import load_config
from guard.gateway.server import serve
serve(load_config(sys.argv[1]), announce=lambda line: print(line, flush=True))
"""
UPSTREAM = """
import asyncio, sys
from guard.testing import FakeUpstream

async def main():
    async with FakeUpstream(port=int(sys.argv[1]), delay=float(sys.argv[2])):
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


class Process:
    """A Python program that prints one line when it is ready."""

    def __init__(self, program: str, *arguments: str) -> None:
        command = [sys.executable, "-c", program, *arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.line = self._process.stdout.readline()
        assert self.line, "the program ended before it was ready"

    @property
    def address(self) -> str:
        """HOST:PORT in a gateway's line."""
        return self.line.split(" on ")[1].split()[0]

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def resident_bytes(self) -> int:
        """Its resident memory now."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024

    @property
    def running(self) -> bool:
        """Whether it is still there."""
        return self._process.poll() is None

    def stop(self, seconds: float = 30) -> int:
        """SIGTERM, and the exit status; `subprocess.TimeoutExpired` if it does not end."""
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(seconds)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return status

    def kill(self) -> None:
        """kill -9."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


@contextlib.contextmanager
def started(program: str, *arguments: str) -> Iterator[Process]:
    """A process for the length of a `with`."""
    process = Process(program, *arguments)
    try:
        yield process
    finally:
        process.kill()


def free_port() -> int:
    """A TCP port that nobody uses."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def write_config(path: Path, pack: Path, *models: dict[str, Any], **gateway: Any) -> Path:
    """A `guard.toml` for models of one pack on a free port, without metrics unless asked for."""
    lines = _table("[gateway]", {"listen": "127.0.0.1:0", "metrics": "", **gateway})
    for model in models:
        lines += _table("[[models]]", {"pack": str(pack), **model})
    path.write_text("\n".join(lines))
    return path


def _table(head: str, values: dict[str, Any]) -> list[str]:
    plain = {key: value for key, value in values.items() if not isinstance(value, dict)}
    nested = {key: value for key, value in values.items() if isinstance(value, dict)}
    lines = [head, *(f"{key} = {json.dumps(value)}" for key, value in plain.items())]
    for key, value in nested.items():
        lines += _table(f"[{head.strip('[]')}.{key}]", value)
    return lines
