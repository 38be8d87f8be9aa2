"""The gateway's process dies, hangs, runs out of something, or does not start again."""

import asyncio
import contextlib
import json
import os
import resource
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from guard.testing import make_pack
from tests.faults.frame import Mode, Play, fault
from tests.faults.gateway import Gateway
from tests.faults.stage import Stage
from tests.faults.traffic import PATH, Caller

AWAY = ("UNAVAILABLE",)
RETRIED = {
    "methodConfig": [
        {
            "name": [{"service": PATH.split("/")[1]}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    "loadBalancingConfig": [{"round_robin": {}}],
}


def ended(number: signal.Signals) -> Play:
    """A fault that ends the process; a supervisor starts it again."""

    async def play(stage: Stage) -> AsyncIterator[None]:
        gateway = await stage.gateway()
        yield
        gateway.signal(number)
        await gateway.gone()
        yield
        await gateway.start()

    play.__module__ = __name__
    return play


fault(
    "the gateway is killed (SIGKILL, as the kernel does when memory is short)", Mode.CLOSED,
    sees=AWAY, metric="up", alert="GuardDown", clears=True, quick=True,
)(ended(signal.SIGKILL))  # fmt: skip
fault(
    "the gateway crashes in native code (SIGSEGV) and is restarted", Mode.CLOSED,
    sees=AWAY, metric="process_start_time_seconds", alert="GuardRestarted", after=True,
)(ended(signal.SIGSEGV))  # fmt: skip


@fault(
    "the gateway hangs (SIGSTOP)",
    Mode.CLOSED,
    sees=("DEADLINE_EXCEEDED",),
    metric="up",
    alert="GuardDown",
    clears=True,
)
async def stopped(stage: Stage) -> AsyncIterator[None]:
    """Clients have their deadlines; what was sent meanwhile is answered or given up."""
    gateway = await stage.gateway()
    await stage.calls(Caller(gateway.address, timeout=1.5))
    yield
    gateway.signal(signal.SIGSTOP)
    yield
    gateway.signal(signal.SIGCONT)


@fault(
    "one of two replicas is lost, clients retry",
    Mode.GOES_ON,
    sees=("OK",),
    metric="up",
    alert="GuardDown",
    clears=True,
)
async def replica(stage: Stage) -> AsyncIterator[None]:
    """The stock client's own round robin and retries are enough."""
    gateways = [await stage.gateway(name) for name in "ab"]
    addresses = ",".join(gateway.address for gateway in gateways)
    options = (("grpc.service_config", json.dumps(RETRIED)), ("grpc.enable_retries", 1))
    await stage.calls(Caller(f"ipv4:{addresses}", options=options))
    yield
    await gateways[1].kill()
    yield
    await gateways[1].start()


@fault(
    "file descriptors run out",
    Mode.CLOSED,
    sees=("UNAVAILABLE", "DEADLINE_EXCEEDED"),
    metric="up",
    alert="GuardDown",
    clears=True,
)
async def descriptors(stage: Stage) -> AsyncIterator[None]:
    """Nobody new gets in until there are some again; an alert comes before they are gone."""
    gateway = await stage.gateway()
    await stage.calls(Caller(gateway.address, fresh=True, timeout=1.0))
    yield
    whole = resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE)
    used = len(list(Path(f"/proc/{gateway.pid}/fd").iterdir()))
    resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (used + 6, whole[1]))
    async with asyncio.timeout(20):
        while "GuardDescriptorsShort" not in await stage.alerts():
            await asyncio.sleep(0.1)
    for _ in range(12):
        stage.enter_context(socket.create_connection(gateway.address.split(":")))  # type: ignore[arg-type]
    await asyncio.sleep(1)
    yield
    resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, whole)


@fault(
    "memory runs out (RLIMIT_AS, all of it used)",
    Mode.CLOSED,
    sees=("UNAVAILABLE", "INTERNAL INTERNAL", "DEADLINE_EXCEEDED"),
    metric="up",
    alert="GuardDown",
    clears=True,
)
async def memory(stage: Stage) -> AsyncIterator[None]:
    """Refused as an internal error, never as the caller's; native code that gets none may crash."""
    gateway = await stage.gateway(breakable=True)
    yield
    await gateway.say("memory-runs-out", answered=False)
    assert stage.traffic is not None
    samples = stage.traffic.samples
    await stage.until(lambda: samples[-1].outcome != "OK")
    yield
    await gateway.kill()
    await gateway.start()


@fault(
    "idle connections hold the metrics port",
    Mode.GOES_ON,
    sees=("OK",),
    metric="up",
    alert="GuardDown",
    clears=True,
)
async def held(stage: Stage) -> AsyncIterator[None]:
    """Whoever clogs the pages does not touch inference, and is thrown out after ten seconds."""
    await stage.gateway()
    yield
    port = stage.slot.ports["a"]
    for _ in range(64):
        with contextlib.suppress(OSError):
            stage.enter_context(socket.create_connection(("127.0.0.1", port)))
    yield


# ── it does not start again ──────────────────────────────────────────────────────────────────────


def refused(spoil: Callable[[Stage, Gateway], Callable[[], None]], names: str) -> Play:
    """A fault that a restart meets: the start is refused in one line that names it."""

    async def play(stage: Stage) -> AsyncIterator[None]:
        pack = make_pack(stage.folder / "own" / "tiny")
        secret = stage.folder / "secret"
        secret.write_bytes(os.urandom(32).hex().encode())
        audit = {"folder": "audit", "key_file": "audit.key"}
        model = {"pack": str(pack)}
        gateway = await stage.gateway(model=model, secret_file="secret", audit=audit)  # noqa: S106
        yield
        gateway.signal(signal.SIGTERM)
        await gateway.gone()
        mend = spoil(stage, gateway)
        complaint = await gateway.refuses()
        assert names in complaint, complaint
        yield
        mend()
        await gateway.start()

    play.__module__ = __name__
    return play


def _moved(path: Path) -> Callable[[], None]:
    aside = path.with_name("aside")
    path.rename(aside)
    return lambda: shutil.move(aside, path)


def _changed(path: Path, change: Callable[[bytes], bytes]) -> Callable[[], None]:
    whole = path.read_bytes()
    path.write_bytes(change(whole))

    def back() -> None:
        path.write_bytes(whole)

    return back


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def _pack(stage: Stage) -> Path:
    return stage.folder / "own" / "tiny"


def _log(stage: Stage) -> Path:
    return next((stage.folder / "audit").glob("segment-*"))


def _taken(_stage: Stage, gateway: Gateway) -> Callable[[], None]:
    host, port = gateway.address.split(":")
    listener = socket.create_server((host, int(port)))
    return listener.close


for _name, _spoil, _names in (
    (
        "a member's file is gone when the gateway starts again",
        lambda stage, _: _moved(_pack(stage) / "evidence.onnx"),
        "evidence.onnx",
    ),
    (
        "one bit of the pack is changed when the gateway starts again",
        lambda stage, _: _changed(_pack(stage) / "evidence.onnx", _flipped),
        "evidence.onnx",
    ),
    (
        "bad settings when the gateway starts again",
        lambda _, gateway: _changed(gateway.config, lambda data: b"max_inflight = 1\n" + data),
        "max_inflight",
    ),
    (
        "the secret is gone when the gateway starts again",
        lambda stage, _: _moved(stage.folder / "secret"),
        "gateway.secret_file",
    ),
    (
        "the audit log was altered when the gateway starts again",
        lambda stage, _: _changed(_log(stage), lambda data: data.replace(b"start", b"stArt")),
        "audit",
    ),
    ("the port is taken when the gateway starts again", _taken, "gateway.listen"),
):
    fault(
        _name, Mode.CLOSED, sees=(*AWAY, "DEADLINE_EXCEEDED"), metric="up", alert="GuardDown",
        clears=True,
    )(refused(_spoil, _names))  # fmt: skip
