"""The gateway as a process: load packs, connect upstreams, listen, drain.

`serve(config)` blocks until a signal; `running(config)` is the same for tests and for embedding.
"""

import asyncio
import contextlib
import ctypes
import gc
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME
from grpc_health.v1.health import aio as health

import guard
from guard import metrics
from guard.config import Config, Gateway, split_address
from guard.config.limits import Limits
from guard.errors import ConfigError
from guard.gateway import protocol, release
from guard.gateway.access import Access
from guard.gateway.audit.recorder import OFF, Audit, open_audit
from guard.gateway.crash import leave_no_core
from guard.gateway.desk import Desk
from guard.gateway.door import Door
from guard.gateway.guarded import GuardedModel
from guard.gateway.identity import Authenticator
from guard.gateway.keeping import Kept, keeping
from guard.gateway.limits import Counts, Limiter, LocalCounts
from guard.gateway.loading import Loading
from guard.gateway.operators import GuardServicer
from guard.gateway.pages import Pages
from guard.gateway.promotion import Promotions
from guard.gateway.recorded import Recorded, record_start
from guard.gateway.redis_counts import SharedCounts
from guard.gateway.servicer import InferenceServicer
from guard.gateway.tls import Certificates, server_credentials, watched_certificates
from guard.gateway.upstream import GrpcUpstream
from guard.gateway.watched import Watched
from guard.gateway.wider import WiderHandler

SPARE_CALLS = 32  # beside inference: health, readiness, metadata
WATCH_SECONDS = 1.0
LIVE = "live"  # the health service's name for "a restart would not help"
QUIET_SECONDS = 0.5  # without a request, after which a stopping gateway believes that none comes
TRIM_BYTES = 1 << 20  # received, after which an idle gateway gives memory back
SECRET_BYTES = 32
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Running:
    """A gateway that listens. `port` and `metrics_port` are the ones really in use, 0 for none."""

    servicer: InferenceServicer
    host: str
    port: int
    metrics_port: int
    kept: Kept | None = None  # where it keeps suspects
    audit: Audit = OFF
    authenticator: Authenticator | None = None

    @property
    def address(self) -> str:
        """HOST:PORT for a client."""
        return f"{self.host}:{self.port}"

    def __str__(self) -> str:
        models = self.servicer.models
        providers = ", ".join(sorted({model.pipeline.provider for model in models.values()}))
        return f"guard serving {', '.join(models)} on {self.address} (provider {providers})"


# What runs as long as a gateway does, on top of it: the review console.
Beside = Callable[[Running], contextlib.AbstractAsyncContextManager[object]]


def read_secret(gateway: Gateway) -> bytes | None:
    """The deployment's secret, None where the settings name no source of one."""
    key = "gateway.secret_file"
    if "secret" in gateway.key_release.keys:
        key, secret = release.KEY, release.released(gateway.key_release, "secret")
    elif not gateway.secret_file:
        return None
    else:
        try:
            secret = Path(gateway.secret_file).read_bytes().strip()
        except OSError as error:
            raise ConfigError(f"{key}: {gateway.secret_file}: {error.strerror}", key=key) from error
    if len(secret) < SECRET_BYTES:
        raise ConfigError(
            f"{key}: {len(secret)} bytes are too few, {SECRET_BYTES} at least", key=key
        )
    return secret


@contextlib.asynccontextmanager
async def running(config: Config, beside: Beside | None = None) -> AsyncIterator[Running]:
    """A gateway from these settings, listening inside the `async with`, drained after it.

    Raises `ConfigError`, `PackError` or `AuditError` before anything listens.
    """
    gateway = config.gateway
    secret = await asyncio.to_thread(read_secret, gateway)
    keys = await asyncio.to_thread(release.audit_keys, gateway.key_release)
    async with contextlib.AsyncExitStack() as stack:
        audit = await asyncio.to_thread(open_audit, gateway.audit, keys)
        stack.push_async_callback(asyncio.to_thread, audit.close)
        kept = await stack.enter_async_context(keeping(config))
        loading, models = Loading(config, secret, kept), {}
        for model in config.models:
            models[model.name] = loading.first(model)
            stack.push_async_callback(_close, models, model.name)
        if (passthrough := passthrough_of(gateway)) is not None:
            stack.push_async_callback(passthrough.close)
        limiter = Limiter(gateway.limits, await counts_of(gateway.limits))
        stack.push_async_callback(limiter.close)
        servicer = InferenceServicer(
            models, gateway, passthrough=passthrough, limiter=limiter, version=guard.__version__
        )
        certificates = watched_certificates(gateway.tls)
        authenticator = authenticator_of(gateway)
        desk = desk_of(kept, audit) if kept else None
        if desk is not None:
            stack.callback(desk.close)
        promotions = Promotions(loading, models, audit)
        stack.push_async_callback(promotions.close)
        for model in config.models:
            await promotions.start(model)
        server, checks = build_server(servicer, authenticator, audit, desk, promotions)
        host, port = _listen(server, gateway.listen, certificates)
        pages = None
        if gateway.metrics:
            pages = Pages(
                gateway.metrics,
                certificates=certificates,
                authenticator=authenticator,
                audit=audit,
            )
            stack.push_async_callback(asyncio.to_thread, pages.close)
        await _refresh(servicer, checks)
        await record_start(audit, config, models.values(), guard.__version__)
        stack.callback(audit.record, "gateway.stop")
        await server.start()
        stack.push_async_callback(server.stop, gateway.drain)
        stack.push_async_callback(_lame_duck, servicer, gateway.drain)
        stack.push_async_callback(checks.enter_graceful_shutdown)
        watch = asyncio.create_task(_watch(servicer, checks))
        stack.callback(watch.cancel)
        pages_port = pages.port if pages else 0
        found = Running(servicer, host, port, pages_port, kept, audit, authenticator)
        if beside is not None:
            await stack.enter_async_context(beside(found))
        yield found


async def _close(models: Mapping[str, GuardedModel], name: str) -> None:
    """Put away whichever serves by then."""
    await models[name].close()


def passthrough_of(gateway: Gateway) -> GrpcUpstream | None:
    """Who gets what names no model here, None where nobody does."""
    if not gateway.passthrough:
        return None
    return GrpcUpstream(
        gateway.passthrough,
        model="",
        tls=gateway.passthrough_tls,
        max_message_bytes=gateway.max_message_bytes,
    )


def desk_of(kept: Kept, audit: Audit) -> Desk:
    """Where RPCs get at suspects."""
    settings = kept.settings
    return Desk(
        kept.store,
        audit,
        required=settings.reviewers,
        claim_seconds=settings.claim_seconds,
    )


async def counts_of(limits: Limits) -> Counts:
    """Where callers' use is counted: here, or in Redis. Raises ConfigError."""
    local = LocalCounts(limits.max_callers)
    if not limits.redis:
        return local
    shared = SharedCounts(limits, local)
    await shared.start()
    return shared


def authenticator_of(gateway: Gateway) -> Authenticator | None:
    """Who tells callers apart, None where everybody may do everything. Raises ConfigError."""
    if not (gateway.tls.client_ca or gateway.identity.tokens.keys):
        return None
    return Authenticator(gateway.tls, gateway.identity)


def build_server(
    servicer: InferenceServicer,
    authenticator: Authenticator | None = None,
    audit: Audit = OFF,
    desk: Desk | None = None,
    promotions: Promotions | None = None,
) -> tuple[grpc.aio.Server, health.HealthServicer]:
    """A server with every service, and its health service; nothing listens yet."""
    gateway = servicer.gateway
    server = grpc.aio.server(
        interceptors=[
            *([Recorded(audit)] if audit.enabled else ()),
            Door(gateway.limits, servicer.check_room),
            *([Access(authenticator)] if authenticator else ()),
        ],
        options=server_options(gateway),
    )
    operators = GuardServicer(servicer, desk, promotions)
    handlers = (servicer.handler(), WiderHandler(servicer), operators.handler())
    server.add_generic_rpc_handlers(handlers)
    checks = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    if gateway.reflection:
        _add_reflection(server)
    return server, checks


def server_options(gateway: Gateway) -> list[tuple[str, int]]:
    """Limits that gRPC does not have by default; numbers and attacks are in the threat model."""
    plain = (
        () if gateway.limits.compression else (("grpc.compression_enabled_algorithms_bitset", 1),)
    )
    return [
        *plain,
        ("grpc.max_receive_message_length", gateway.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", max(100, gateway.max_in_flight + SPARE_CALLS)),
        ("grpc.max_metadata_size", 16 << 10),
        ("grpc.max_allowed_incoming_connections", gateway.limits.max_connections),
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.so_reuseport", 0),  # a second gateway on the port is an error, not a lottery
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 3),
        ("grpc.max_connection_idle_ms", 600_000),
        ("grpc.max_connection_age_ms", int(gateway.max_connection_age * 1000)),
        ("grpc.max_connection_age_grace_ms", int(gateway.request_timeout * 1000) + 1000),
    ]


def _listen(
    server: grpc.aio.Server, address: str, certificates: Watched[Certificates] | None
) -> tuple[str, int]:
    host, _ = split_address(address, key="gateway.listen")
    try:
        if certificates is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, server_credentials(certificates))
    except RuntimeError as error:
        message = f"gateway.listen: cannot listen on {address}"
        raise ConfigError(message, key="gateway.listen") from error
    return host, port


def _add_reflection(server: grpc.aio.Server) -> None:
    """Reflection from our private pool, which is told of the health service too."""
    from grpc_reflection.v1alpha import reflection_pb2_grpc
    from grpc_reflection.v1alpha.reflection import aio

    protocol.POOL.AddSerializedFile(health_pb2.DESCRIPTOR.serialized_pb)
    names = (protocol.INFERENCE_SERVICE, protocol.GUARD_SERVICE, SERVICE_NAME)
    servicer = aio.ReflectionServicer(names, protocol.POOL)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)


async def _refresh(servicer: InferenceServicer, checks: health.HealthServicer) -> None:
    """Bring the health service up to date: the server as a whole, and every model by name."""
    status = health_pb2.HealthCheckResponse.ServingStatus
    states = {name: await model.ready() for name, model in servicer.models.items()}
    for name, ready in states.items():
        metrics.READY.labels(name).set(ready)
    states |= {"": all(states.values()), protocol.INFERENCE_SERVICE: all(states.values())}
    states[LIVE] = servicer.live()
    for name, ready in states.items():
        await checks.set(name, status.SERVING if ready else status.NOT_SERVING)


async def _watch(servicer: InferenceServicer, checks: health.HealthServicer) -> None:
    """Once a second: health, and the memory that large requests left behind."""
    trimmed = 0
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        await _refresh(servicer, checks)
        if servicer.in_flight == 0 and servicer.received > trimmed + TRIM_BYTES:
            trimmed = servicer.received
            await asyncio.to_thread(_trim_memory)


async def _lame_duck(servicer: InferenceServicer, drain: float) -> None:
    """Keep answering until clients that watch our health have gone, for half of `drain` at most.

    gRPC cancels what arrives while it stops, so it stops when nothing does any more.
    """
    until, seen = time.monotonic() + drain / 2, 0
    while (servicer.received != seen or servicer.in_flight) and time.monotonic() < until:
        seen = servicer.received
        await asyncio.sleep(min(QUIET_SECONDS, drain / 10))


def _trim_memory() -> None:
    """Give freed memory back to the system, where the C library can (glibc)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def serve(
    config: Config,
    *,
    announce: Callable[[str], None] = print,
    beside: Beside | None = None,
) -> None:
    """Run a gateway until SIGINT or SIGTERM, then drain it.

    announce: gets one line when the gateway is ready for requests.
    """
    if config.suspects.enabled:
        leave_no_core()
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):  # faster, never required
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_serve(config, announce, beside))


async def _serve(config: Config, announce: Callable[[str], None], beside: Beside | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with running(config, beside) as gateway:
        gc.collect()
        gc.freeze()  # what start-up made stays: later collections need not walk it
        announce(str(gateway))
        await stop.wait()
        log.info("draining for at most %g seconds", config.gateway.drain)
