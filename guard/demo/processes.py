"""The demo's two servers, each in a process of its own, gone when the `with` ends."""

import json
import os
import socket
import subprocess  # nosec B404
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import guard
from guard.client import Client
from guard.demo.traffic import MODEL
from guard.errors import GuardError

START, STOP = 60.0, 10.0  # seconds that a process may take to start and to stop


def free_port() -> int:
    """A loopback TCP port that nobody uses."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(arguments: Sequence[str], *, port: int, log: Path) -> Iterator[Client]:
    """`python -m ARGUMENTS` and a client for its port, once it is ready to serve MODEL.

    What it prints goes to `log`; GuardError with its last line when it does not start.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(  # nosec B603  # noqa: S603 - our own program and arguments
            [sys.executable, "-m", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(),
        )
    try:
        _until(lambda: _listens(port), process, log)
        with Client(f"127.0.0.1:{port}") as client:
            _until(lambda: client.ready(MODEL), process, log)
            yield client
    finally:
        _end(process)


@contextmanager
def no_proxy() -> Iterator[None]:
    """Loopback stays on this machine: gRPC would send it to `http_proxy` like anything else."""
    name = "no_grpc_proxy"
    before = os.environ.get(name)
    os.environ[name] = "127.0.0.1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def production(model: Path, *, port: int) -> list[str]:
    """The arguments that serve an ONNX file as the classifier to be guarded."""
    listen = f"127.0.0.1:{port}"
    return ["guard.gateway.standalone", str(model), "--name", MODEL, "--listen", listen]


def gateway(config: Path) -> list[str]:
    """The arguments that serve a `guard.toml`."""
    return ["guard.cli", "serve", str(config)]


def write_config(
    path: Path, *, pack: Path, upstream: int, listen: int, metrics: int, budget: float
) -> Path:
    """The `guard.toml` of the demo; its secret and calibration lie beside it."""
    path.write_text(
        f"""[gateway]
listen = "127.0.0.1:{listen}"
metrics = "127.0.0.1:{metrics}"
secret_file = "secret"

[[models]]
name = "{MODEL}"
pack = {json.dumps(str(pack), ensure_ascii=False)}
upstream = "grpc://127.0.0.1:{upstream}"
calibration = "calibration.npz"
mode = "enforce"
on_flag = "block"
max_false_positive_rate = {budget!r}
expose = "full"
""",
        encoding="utf-8",
    )
    return path


def _environment() -> dict[str, str]:
    """Ours, with this very guard first on the path."""
    source = str(Path(guard.__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path}


def _listens(port: int) -> bool:
    with socket.socket() as caller:
        caller.settimeout(1)
        return caller.connect_ex(("127.0.0.1", port)) == 0


def _until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            lines = log.read_text(errors="replace").strip().splitlines()
            why = lines[-1] if lines else f"not ready within {START:.0f} seconds"
            raise GuardError(f"{Path(log).stem} did not start: {why}")
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to stop; kill it when it does not, or when we are interrupted meanwhile."""
    process.terminate()
    try:
        process.wait(STOP)
    except subprocess.TimeoutExpired:
        pass
    finally:
        process.kill()
        process.wait()
