"""The production classifier fails, or says what cannot be read."""

import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import numpy as np

from guard.gateway import codec
from guard.testing import FakeUpstream
from tests.end_to_end.processes import UPSTREAM, free_port, started
from tests.faults.frame import OVERLOADED, Mode, Play, fault
from tests.faults.stage import Stage

FAILS = 'guard_upstream_errors_total{{code="{}"}}'.format
ALERT = "GuardUpstreamFails"
READS = {"output": {"tensor": "probabilities"}}


def spoiled(change: Callable[[FakeUpstream], None], **settings: Any) -> Play:
    """A fault that a change of the model server makes; it is itself again afterwards."""

    async def play(stage: Stage) -> AsyncIterator[None]:
        upstream = await stage.upstream()
        whole = dict(vars(upstream))
        await stage.gateway(model={"upstream": upstream.address, **READS, **settings})
        yield
        change(upstream)
        yield
        vars(upstream).update(
            {name: whole[name] for name in ("delay", "error", "edit", "is_ready")}
        )

    play.__module__ = __name__
    return play


def edited(edit: Callable[[Any], Any]) -> Play:
    """A fault in what the model server answers."""
    return spoiled(lambda upstream: setattr(upstream, "edit", edit))


def failing(code: grpc.StatusCode) -> Play:
    """A fault in which the model server answers a status."""
    return spoiled(lambda upstream: setattr(upstream, "error", (code, "/models/x")))


def _rewrite(response: Any, array: Any) -> None:
    """Answer this as `probabilities`, whatever its shape and type."""
    tensor = codec.pack_tensor(array)
    output = response.outputs[0]
    output.datatype, output.shape[:] = tensor.datatype, list(tensor.shape)
    response.raw_output_contents[0] = tensor.data


def _doubled(response: Any) -> None:
    _rewrite(response, np.full((1, 6), 1 / 6, np.float32))


def _text(response: Any) -> None:
    _rewrite(response, np.array([[b"red", b"green", b"blue"]], object))


def _no_rows(response: Any) -> None:
    _rewrite(response, np.zeros((0, 3), np.float32))


def _not_a_number(response: Any) -> None:
    _rewrite(response, np.full((1, 3), np.nan, np.float32))


def _renamed(response: Any) -> None:
    response.outputs[0].name = "scores"


def _truncated(response: Any) -> None:
    response.raw_output_contents[0] = b"short"


def _huge(response: Any) -> None:
    response.parameters["more"].string_param = "x" * 300_000


for _name, _edit, _code in (
    ("the upstream answers wrong shapes", _doubled, "INTERNAL UPSTREAM"),
    ("the upstream answers a wrong datatype", _text, "INTERNAL UPSTREAM"),
    ("the upstream answers too few rows", _no_rows, "INTERNAL UPSTREAM"),
    ("the upstream renames its output", _renamed, "INTERNAL UPSTREAM"),
    ("the upstream's tensor is cut short", _truncated, "INTERNAL UPSTREAM"),
):
    fault(
        _name, Mode.CLOSED, sees=(_code,), metric=FAILS("MALFORMED"), alert=ALERT,
        quick=_edit is _doubled,
    )(edited(_edit))  # fmt: skip
fault(
    "the upstream answers NaN", Mode.CLOSED, sees=("INTERNAL NON_FINITE",),
    metric='guard_errors_total{reason="non_finite"}', alert="GuardNumbersNotFinite",
)(edited(_not_a_number))  # fmt: skip
fault(
    "the upstream is slower than upstream_timeout", Mode.CLOSED,
    sees=("DEADLINE_EXCEEDED UPSTREAM", OVERLOADED), metric=FAILS("DEADLINE_EXCEEDED"), alert=ALERT,
)(spoiled(lambda upstream: setattr(upstream, "delay", 5.0), upstream_timeout=1.0))  # fmt: skip
fault(
    "the upstream fails inside", Mode.CLOSED, sees=("INTERNAL UPSTREAM",),
    metric=FAILS("INTERNAL"), alert=ALERT,
)(failing(grpc.StatusCode.INTERNAL))  # fmt: skip
fault(
    "the upstream is overloaded", Mode.CLOSED, sees=("RESOURCE_EXHAUSTED UPSTREAM",),
    metric=FAILS("RESOURCE_EXHAUSTED"), alert=ALERT,
)(failing(grpc.StatusCode.RESOURCE_EXHAUSTED))  # fmt: skip
fault(
    "the upstream says that it is not ready, and answers", Mode.GOES_ON, sees=("OK",),
    metric="guard_ready", alert="GuardNotReady", clears=True,
)(spoiled(lambda upstream: setattr(upstream, "is_ready", False)))  # fmt: skip


async def _killed(stage: Stage, **model: Any) -> AsyncIterator[None]:
    upstream = await stage.upstream()
    await stage.gateway(model={"upstream": upstream.address, **READS, **model})
    yield
    await upstream.__aexit__(None, None, None)
    yield
    await upstream.__aenter__()


@fault(
    "the upstream is killed",
    Mode.CLOSED,
    sees=("UNAVAILABLE UPSTREAM",),
    metric=FAILS("UNAVAILABLE"),
    alert=ALERT,
    quick=True,
)
async def killed(stage: Stage) -> AsyncIterator[None]:
    """No connection: refused at once, found again when it is back."""
    async for _ in _killed(stage):
        yield


@fault(
    'the upstream is killed, answer = "ensemble", on_error = "allow"',
    Mode.GOES_ON,
    sees=("OK",),
    metric=FAILS("UNAVAILABLE"),
    alert=ALERT,
)
async def done_without(stage: Stage) -> AsyncIterator[None]:
    """Where the ensemble answers the upstream is one more witness, and may be missing."""
    async for _ in _killed(stage, answer="ensemble", on_error="allow"):
        yield


@fault(
    "the upstream hangs (SIGSTOP)",
    Mode.CLOSED,
    sees=("DEADLINE_EXCEEDED UPSTREAM", OVERLOADED),
    metric=FAILS("DEADLINE_EXCEEDED"),
    alert=ALERT,
)
async def stopped(stage: Stage) -> AsyncIterator[None]:
    """A process that is there and says nothing costs upstream_timeout."""
    port = free_port()
    process = stage.enter_context(started(UPSTREAM, str(port), "0"))
    model = {"upstream": f"grpc://127.0.0.1:{port}", "upstream_timeout": 1.0, **READS}
    await stage.gateway(model=model)
    yield
    os.kill(process.pid, signal.SIGSTOP)
    yield
    os.kill(process.pid, signal.SIGCONT)


@fault(
    "the upstream is replaced by one with a certificate of a stranger",
    Mode.CLOSED,
    sees=("UNAVAILABLE UPSTREAM",),
    metric=FAILS("UNAVAILABLE"),
    alert=ALERT,
    secure=True,
)
async def another_certificate(stage: Stage) -> AsyncIterator[None]:
    """Whoever cannot show the right certificate never sees a picture."""
    world = stage.world
    shown = [authority.issue(dns=("localhost",)) for authority in (world.authority, world.stranger)]
    good, bad = (grpc.ssl_server_credentials([(pair.key, pair.cert)]) for pair in shown)
    upstream = await stage.upstream(credentials=good)
    tls = {"ca": str(world.folder / "ca.pem")}
    address = f"grpcs://localhost:{upstream.port}"
    await stage.gateway(model={"upstream": address, "tls": tls, **READS})
    await stage.calls(stage.caller())
    yield
    await upstream.__aexit__(None, None, None)
    upstream.credentials = bad
    await upstream.__aenter__()
    yield
    await upstream.__aexit__(None, None, None)
    upstream.credentials = good
    await upstream.__aenter__()
    assert all(request.model_name == "tiny" for request in upstream.requests)


@fault(
    "the upstream's answer is larger than max_message_bytes",
    Mode.CLOSED,
    sees=("RESOURCE_EXHAUSTED UPSTREAM",),
    metric=FAILS("RESOURCE_EXHAUSTED"),
    alert=ALERT,
)
async def huge(stage: Stage) -> AsyncIterator[None]:
    """What comes back is bounded like what comes in."""
    upstream = await stage.upstream()
    model = {"upstream": upstream.address, **READS}
    await stage.gateway(model=model, max_message_bytes=100_000)
    yield
    upstream.edit = _huge
    yield
    upstream.edit = None


class _Noise(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Answers every call with bytes that are no message."""

    def service(self, _details: Any) -> grpc.RpcMethodHandler:
        async def noise(_data: bytes, _context: Any) -> bytes:
            return b"\xff\x07 no message"

        return grpc.unary_unary_rpc_method_handler(noise)


@fault(
    "the upstream answers bytes that are no message",
    Mode.CLOSED,
    sees=("INTERNAL UPSTREAM",),
    metric=FAILS("INTERNAL"),
    alert=ALERT,
)
async def noise(stage: Stage) -> AsyncIterator[None]:
    """What cannot be parsed is never passed on."""
    upstream = await stage.upstream()
    await stage.gateway(model={"upstream": upstream.address, **READS})
    yield
    await upstream.__aexit__(None, None, None)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((_Noise(),))
    server.add_insecure_port(f"127.0.0.1:{upstream.port}")
    await server.start()
    seen = stage.traffic
    assert seen is not None
    await stage.until(lambda: seen.samples[-1].outcome == "INTERNAL UPSTREAM")
    yield
    await server.stop(0)
    await upstream.__aenter__()
