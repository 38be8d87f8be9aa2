"""The console on its own port, in a thread with a loop of its own: it never holds up a request.

async with beside(config, gateway):  # in a gateway
serve(config)                        # `guard console`: alone, on the same store
"""

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from guard.config import Config, split_address
from guard.config.access import ServerTls
from guard.console.app import application
from guard.console.room import Room
from guard.console.sessions import Sessions
from guard.console.users import Users
from guard.errors import ConfigError
from guard.gateway.audit.recorder import Audit
from guard.gateway.desk import Desk
from guard.gateway.guarded import GuardedModel
from guard.gateway.identity import Authenticator
from guard.gateway.server import Running
from guard.gateway.tls import watched_certificates
from guard.pipeline import Pipeline
from guard.suspects.store import Store

KEY = "console.listen"
AT_ONCE = 64  # requests; more are told to come back
STOP_SECONDS = 1
HEAD_SECONDS = 20.0  # that a connection may take for the head of a request
log = logging.getLogger(__name__)


class Port:
    """An application that is served on HOST:PORT; `port` is the one in use."""

    def __init__(self, app: ASGIApp, address: str, context: ssl.SSLContext | None = None) -> None:
        self._socket = _listen(address)
        self.host, self.port = self._socket.getsockname()[:2]
        self.secure = context is not None
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http=_Patient,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=AT_ONCE,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=STOP_SECONDS,
            h11_max_incomplete_event_size=32 << 10,
            ssl_context_factory=None if context is None else lambda *_: context,
        )
        self._server = _Server(config)
        self._thread = threading.Thread(target=self._run, name="console", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self.secure else ''}://{host}:{self.port}"

    def close(self) -> None:
        """Finish what is asked, take nothing on any more."""
        self._server.should_exit = True
        self._thread.join(STOP_SECONDS + 2)
        self._socket.close()

    def _run(self) -> None:
        with contextlib.suppress(SystemExit):
            asyncio.run(self._server.serve(sockets=[self._socket]))


class _Patient(H11Protocol):
    """Waits for a request so long and no longer, so that idle strangers hold no place."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody is there."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self.loop.call_later(HEAD_SECONDS, self._look, self.cycle)

    def _look(self, last: object) -> None:
        """Close, unless a request came since the last look or is being answered."""
        if self.transport.is_closing():
            return
        answering = self.cycle is not None and not self.cycle.response_complete
        if not answering and self.cycle is last:
            self.transport.abort()
        else:
            self.loop.call_later(HEAD_SECONDS, self._look, self.cycle)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's affair."""
        yield


@contextlib.asynccontextmanager
async def beside(gateway: Running, config: Config) -> AsyncIterator[Port]:
    """The console of a gateway that keeps suspects, on a port of its own."""
    if gateway.kept is None:
        raise ConfigError(f"{KEY}: there is nothing to review: set suspects.folder", key=KEY)
    pipelines = _Live(gateway.servicer.models)
    place = Place(gateway.kept.store, gateway.audit, gateway.authenticator, pipelines)
    with opened(config, place) as port:
        yield port


class _Live(Mapping[str, Pipeline]):
    """The pipelines of models by name, as they are when they are asked for: packs are promoted."""

    def __init__(self, models: Mapping[str, GuardedModel]) -> None:
        self._models = models

    def __getitem__(self, name: str) -> Pipeline:
        return self._models[name].pipeline

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)


class Place(NamedTuple):
    """What a console stands on."""

    store: Store
    audit: Audit
    authenticator: Authenticator | None
    pipelines: Mapping[str, Pipeline]  # by model


@contextlib.contextmanager
def opened(config: Config, place: Place) -> Iterator[Port]:
    """The console, answering inside the `with`. Raises ConfigError."""
    settings, suspects = config.console, config.suspects
    desk = Desk(
        place.store,
        place.audit,
        required=suspects.reviewers,
        claim_seconds=suspects.claim_seconds,
        via="console",
    )
    context = _context(config.gateway.tls)
    room = Room(
        desk=desk,
        audit=place.audit,
        pipelines=place.pipelines,
        settings=settings,
        sessions=Sessions(lasts=settings.session_hours * 3600, idle=settings.idle_minutes * 60),
        users=Users(Path(settings.users_file)) if settings.users_file else None,
        authenticator=place.authenticator,
        secure=context is not None or settings.origin.startswith("https:"),
    )
    try:
        port = Port(application(room), settings.listen, context)
        try:
            yield port
        finally:
            port.close()
    finally:
        desk.close()


def _context(tls: ServerTls) -> ssl.SSLContext | None:
    """The gateway's certificate, as it is at each handshake; browsers are asked for none."""
    watched = watched_certificates(ServerTls(cert=tls.cert, key=tls.key))
    if watched is None:
        return None
    first = watched.get().context

    def newest(sock: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        sock.context = watched.get().context

    first.sni_callback = newest
    return first


def _listen(address: str) -> socket.socket:
    host, port = split_address(address, key=KEY)
    try:
        found = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, where = found[0]
        # Named as TCP, so that asyncio sends small writes at once (TCP_NODELAY).
        made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(where)
        made.listen(128)
    except OSError as error:
        text = f"{KEY}: cannot listen on {address}: {error.strerror or error}"
        raise ConfigError(text, key=KEY) from error
    return made
