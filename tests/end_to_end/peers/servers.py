"""Real model servers as processes, and a gateway in a thread before them."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from guard.client import CallError, Client
from guard.config import Config
from guard.gateway.server import Running, running

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
KINDS = ("mlserver", "triton")
START_SECONDS = 90


def environment() -> Path | None:
    """The virtual environment that `deploy/ci/install peers` made, None where there is none."""
    folder = Path(os.environ.get("GUARD_PEERS", ROOT / ".venv-peers"))
    return folder if (folder / "bin" / "mlserver").is_file() else None


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on just now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Peer:
    """A model server of one of the KINDS that serves ONNX files by name; may be killed.

    folder: empty, for its settings and its log. options: MLServer settings of every model.
    """

    def __init__(
        self, kind: str, models: Mapping[str, Path], folder: Path, **options: object
    ) -> None:
        self.kind, self.models, self.folder, self.options = kind, models, folder, options
        self.ports = free_ports(3)
        self.address = f"127.0.0.1:{self.ports[0]}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start, on the same ports every time, and wait until every model answers."""
        found = environment()
        assert found is not None
        command = self._mlserver(found) if self.kind == "mlserver" else self._triton(found)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        with Client(self.address, timeout=2) as client:
            while not self._ready(client):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    tail = (self.folder / "log").read_text()[-2000:]
                    raise RuntimeError(f"{self.kind} did not start: {tail}")
                time.sleep(0.1)

    def kill(self) -> None:
        """kill -9, children too."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _ready(self, client: Client) -> bool:
        try:
            return all(client.ready(name) for name in self.models)
        except CallError:
            return False

    def _mlserver(self, found: Path) -> list[str]:
        grpc_port, http_port, metrics_port = self.ports
        shutil.copy(HERE / "mlserver_onnx.py", self.folder)
        settings = {
            "host": "127.0.0.1",
            "grpc_port": grpc_port,
            "http_port": http_port,
            "metrics_port": metrics_port,
            "grpc_max_message_length": 64 << 20,
            "parallel_workers": 0,
            "debug": False,
        }
        (self.folder / "settings.json").write_text(json.dumps(settings))
        for name, file in self.models.items():
            (self.folder / name).mkdir(exist_ok=True)
            about = {
                "name": name,
                "implementation": "mlserver_onnx.OnnxModel",
                "parameters": {"uri": str(file)},
                **self.options,
            }
            (self.folder / name / "model-settings.json").write_text(json.dumps(about))
        return [str(found / "bin" / "mlserver"), "start", str(self.folder)]

    def _triton(self, found: Path) -> list[str]:
        script = HERE / "triton_onnx.py"
        models = [f"{name}={file}" for name, file in self.models.items()]
        return [str(found / "bin" / "python"), str(script), *map(str, self.ports), *models]


@contextlib.contextmanager
def gateway(config: Config) -> Iterator[Running]:
    """A gateway with an event loop of its own, for synchronous clients."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    context = running(config)
    try:
        yield asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result()
        asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
