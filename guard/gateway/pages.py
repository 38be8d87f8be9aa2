"""The HTTP port: `/metrics`, behind the same door as gRPC.

With TLS settings it speaks TLS, with identities it asks who calls: a client certificate or a token
in `Authorization`, and a role by `permissions.py`. Every connection has a thread and little time.
"""

import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from socketserver import ThreadingMixIn
from threading import BoundedSemaphore, Thread
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from guard import metrics
from guard.config import split_address
from guard.errors import ConfigError
from guard.gateway import permissions
from guard.gateway.access import authorise, count_refusal
from guard.gateway.audit.recorder import OFF, Audit
from guard.gateway.identity import Authenticator, Identity
from guard.gateway.status import ForbiddenError, UnauthenticatedError
from guard.gateway.tls import Certificates
from guard.gateway.watched import Watched

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

SECONDS = 10.0  # that a handshake, or a silence within a request, may last
AT_ONCE = 32  # connections; more are closed
SERVER = "guard"
PEER = "guard.peer_certificate"
PAGES: "Mapping[str, Callable[[], WSGIApplication]]" = {
    permissions.METRICS_PAGE: metrics.exposition
}
log = logging.getLogger(__name__)


class Pages:
    """The pages on HOST:PORT; `port` is the one in use."""

    def __init__(
        self,
        address: str,
        *,
        certificates: Watched[Certificates] | None = None,
        authenticator: Authenticator | None = None,
        audit: Audit = OFF,
    ) -> None:
        host, port = split_address(address, key="gateway.metrics")
        try:
            self._server = _Server(host.strip("[]"), port, certificates)
        except OSError as failure:
            raise ConfigError(
                f"gateway.metrics: cannot listen on {address}: {failure.strerror or failure}",
                key="gateway.metrics",
            ) from failure
        self._server.set_app(_Door(authenticator, audit))
        self.port: int = self._server.server_port
        self._thread = Thread(target=self._server.serve_forever, name="pages", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Door:
    """A WSGI application: the page asked for, to those who may see it."""

    def __init__(self, authenticator: Authenticator | None, audit: Audit) -> None:
        self._authenticator, self._audit = authenticator, audit
        self._pages = {path: make() for path, make in PAGES.items()}

    def __call__(self, environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        name, start = "", _unnamed(start)
        try:
            if self._authenticator is not None:
                identity = _identified(self._authenticator, environ)
                name = identity.name
                authorise(identity, path)
            page: WSGIApplication | None = self._pages.get(path)
        except UnauthenticatedError as error:
            count_refusal(error)
            self._refused("refused.identity", path, name)
            return _empty(start, HTTPStatus.UNAUTHORIZED, ("WWW-Authenticate", "Bearer"))
        except ForbiddenError:
            self._refused("refused.permission", path, name)
            return _empty(start, HTTPStatus.FORBIDDEN)
        return _empty(start, HTTPStatus.NOT_FOUND) if page is None else page(environ, start)

    def _refused(self, event: str, path: str, name: str) -> None:
        page = path if path in permissions.TABLE else "unknown"
        self._audit.record(event, actor=name, outcome="refused", page=page)


def _identified(authenticator: Authenticator, environ: "WSGIEnvironment") -> Identity:
    header = environ.get("HTTP_AUTHORIZATION")
    identity = authenticator.by_token([] if header is None else [header])
    if identity is not None:
        return identity
    peer = environ.get(PEER) or {}
    uris = [value for kind, value in peer.get("subjectAltName", ()) if kind == "URI"]
    subject = [pair for part in peer.get("subject", ()) for pair in part]
    return authenticator.by_certificate(uris, [v for k, v in subject if k == "commonName"])


def _unnamed(start: "StartResponse") -> "StartResponse":
    """The same, without the interpreter's version in `Server`."""

    def begin(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
        return start(status, [*headers, ("Server", SERVER)], *rest)

    return begin


def _empty(
    start: "StartResponse", status: HTTPStatus, *headers: tuple[str, str]
) -> Iterable[bytes]:
    start(f"{status.value} {status.phrase}", [("Content-Length", "0"), *headers])
    return [b""]


class _Handler(WSGIRequestHandler):
    timeout = SECONDS
    server_version, sys_version = SERVER, ""

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environ()
        if isinstance(self.connection, ssl.SSLSocket):
            environ[PEER] = self.connection.getpeercert()
        return environ

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        """Scrapes are not news."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, certificates: Watched[Certificates] | None) -> None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, where = found[0][0], found[0][4]
        self._certificates = certificates
        self._free = BoundedSemaphore(AT_ONCE)
        super().__init__(where[:2], _Handler)  # type: ignore[arg-type]  # of AF_INET or AF_INET6

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for a connection, while there are few."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """TLS first: in the connection's own thread, so that a slow handshake holds up nobody."""
        try:
            if self._certificates is not None:
                request.settimeout(SECONDS)
                context = self._certificates.get().context
                try:
                    request = context.wrap_socket(request, server_side=True)
                except (OSError, ValueError):
                    metrics.AUTH_FAILURES.labels("handshake").inc()
                    self.shutdown_request(request)
                    return
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def server_bind(self) -> None:
        """Without the name look-up of the base class, which may take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """A connection that breaks is its client's affair."""
        log.debug("a connection to the pages broke", exc_info=True)

    def shutdown_request(self, request: Any) -> None:
        """Close, whatever state TLS is in."""
        with contextlib.suppress(OSError, ValueError):
            super().shutdown_request(request)
