"""What comes over real sockets: a slice of the gRPC requests, and the HTTP port's bytes."""

import contextlib
import json
import random
import re
import socket
import threading
from collections.abc import Hashable
from typing import Any

import grpc
import grpc.aio
import jwt

from guard.config.access import Grant, Identities, ServerTls, Tokens
from guard.gateway import pages, protocol
from guard.gateway.audit.recorder import OFF
from guard.gateway.identity import Authenticator
from tests.fuzz.engine import Refused
from tests.fuzz.messages import shaken
from tests.fuzz.target import Finding, Target, demand
from tests.fuzz.targets.tokens import AUDIENCE, CLAIMS, ISSUER, jwks, signer
from tests.fuzz.targets.wire import BROKEN, Wire

STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ([A-Za-z -]+)\r\n")
EXPECTED = {200, 400, 401, 403, 404, 405, 414, 431, 501, 505}
LONGEST_ANSWER = 4 << 20
WORDS = (
    *(b"GET ", b"POST ", b"HEAD ", b"OPTIONS ", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    *(b" HTTP/1.0\r\n", b" HTTP/1.1\r\n", b" HTTP/9.9\r\n", b"/metrics", b"/metrics?name[]=x"),
    *(b"/../etc/passwd", b"/%2e%2e/", b"/%00", b"/%ff%fe", b"http://x/metrics", b"//metrics"),
    *(b"\r\n\r\n", b"\r\n", b"\n", b"Authorization: Bearer ", b"Content-Length: 5\r\n"),
    *(b"Content-Length: -1\r\n", b"Host: x\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(b"Expect: 100-continue\r\n", b"Connection: keep-alive\r\n", b"Accept-Encoding: gzip\r\n"),
    b"Accept: application/openmetrics-text; version=1.0.0\r\n",
    *(b"X: " + b"a" * 70_000 + b"\r\n", b"X: y\r\n" * 150, b"\x16\x03\x01\x02\x00\x01\x00"),
)  # fmt: skip


class Loopback(Wire):
    """`ModelInfer` through a real server and a real client, over a loopback connection."""

    name = "loopback"

    def __init__(self) -> None:
        super().__init__()
        self._channel = self._do(self._connect())
        path = protocol.INFERENCE_METHODS["ModelInfer"].path
        self._call = self._channel.unary_unary(path)

    async def _connect(self) -> Any:
        options = [("grpc.max_receive_message_length", -1), ("grpc.enable_retries", 0)]
        return grpc.aio.insecure_channel(self.gateway.address, options)

    def close(self) -> None:
        """The client leaves first."""
        self._do(self._channel.close())
        super().close()

    def mutate(self, data: bytes, rng: random.Random) -> bytes:
        """Another message."""
        return shaken(protocol.ModelInferRequest, data, rng, self.words)

    def run(self, data: bytes) -> Hashable:
        """One call."""
        return self._do(self._send(data))

    async def _send(self, data: bytes) -> Hashable:
        try:
            answer = await self._call(data, timeout=30)
        except grpc.aio.AioRpcError as error:
            details = error.details() or ""
            if error.code() in BROKEN:
                raise Finding("internal", f"{error.code()}: {details}") from error
            self.check_reply(details, data)
            rich = dict(error.trailing_metadata() or ()).get(protocol.STATUS_DETAILS)
            info = protocol.error_info(rich) if rich else None
            demand(info and info.reason, f"{error.code()} without ErrorInfo: {details}")
            return Refused([error.code(), info.reason if info else ""])
        reply = protocol.ModelInferResponse.FromString(answer)
        return reply.model_name, tuple(one.name for one in reply.outputs)


class Http(Target):
    """The page port: raw bytes on a connection, behind tokens. Odd inputs bring a good one."""

    name = "http"
    words = WORDS
    strict = True
    good = 3

    def __init__(self) -> None:
        super().__init__()
        keys = self.folder / "keys.json"
        keys.write_text(json.dumps(jwks()))
        settings = Tokens(keys=str(keys), issuer=ISSUER, audience=AUDIENCE)
        grants = [Grant(match="jwt:alice", roles=["operator"])]
        door = Authenticator(ServerTls(), Identities(tokens=settings, grants=grants))
        self._app = pages._Door(door, OFF)
        self._token = jwt.encode(CLAIMS, signer("one"), "EdDSA", {"kid": "one"}).encode()

    def seeds(self) -> list[bytes]:
        """Requests of all kinds."""
        bearer = b"Authorization: Bearer " + self._token + b"\r\n"
        return [
            b"GET /metrics HTTP/1.1\r\n" + bearer + b"Host: x\r\n\r\n",
            b"GET /metrics HTTP/1.0\r\n" + bearer + b"\r\n",
            b"HEAD /metrics HTTP/1.1\r\nAccept-Encoding: gzip\r\n" + bearer + b"\r\n",
            b"GET / HTTP/1.1\r\n" + bearer + b"\r\n",
            b"GET /metrics HTTP/1.1\r\n\r\n",
            b"GET /metrics\r\n",
            b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n" + bearer + b"\r\nhello",
            *(word for word in WORDS if len(word) > 20),
        ]

    def run(self, data: bytes) -> Hashable:
        """One connection, in this thread; the answer is read by another."""
        near, far = socket.socketpair()
        answer = bytearray()
        reader = threading.Thread(target=_drain, args=(near, data, answer))
        reader.start()
        server = _Server(self._app)
        with contextlib.suppress(ConnectionError, TimeoutError, BrokenPipeError):
            pages._Handler(far, ("127.0.0.1", 1), server)  # type: ignore[arg-type]
        far.close()
        reader.join()
        near.close()
        return self._judge(bytes(answer), data)

    def _judge(self, answer: bytes, data: bytes) -> Hashable:
        demand(len(answer) < LONGEST_ANSWER, "an endless answer")
        head, _, body = answer.partition(b"\r\n\r\n")
        found = STATUS.match(answer)
        if found is None:  # HTTP/0.9, or nobody to answer
            demand(b"guard_" not in answer or self._token in data, "metrics without a status line")
            self.check_reply(_line(answer), data)
            return Refused(["none", bool(answer)])
        status = int(found[1])
        if status not in EXPECTED:
            raise Finding("internal", f"status {status} for {data[:80]!r}")
        self.check_reply(_line(head), data)
        if status != 200:
            self.check_reply(_line(body), data)
            demand(b"guard_" not in body, f"metrics under status {status}")
            return Refused([status])
        demand(self._token in data, "a page for nobody")
        return status, len(head.split(b"\r\n"))


class _Server:
    """As much of a server as a handler asks for."""

    multithread, multiprocess = True, False

    def __init__(self, app: Any) -> None:
        self.base_environ = {
            "SERVER_NAME": "127.0.0.1", "GATEWAY_INTERFACE": "CGI/1.1", "SERVER_PORT": "1",
            "REMOTE_HOST": "", "CONTENT_LENGTH": "", "SCRIPT_NAME": "",
        }  # fmt: skip
        self._app = app

    def get_app(self) -> Any:
        """What answers."""
        return self._app


def _drain(near: socket.socket, data: bytes, answer: bytearray) -> None:
    """Send everything, say that it was all, read to the end."""
    with contextlib.suppress(ConnectionError, BrokenPipeError):
        near.sendall(data)
        near.shutdown(socket.SHUT_WR)
    with contextlib.suppress(ConnectionError):
        while len(answer) < LONGEST_ANSWER and (part := near.recv(1 << 16)):
            answer += part


def _line(text: bytes) -> str:
    return " ".join(text[:600].decode("latin-1").split())
