"""The production classifier behind gRPC: any server that speaks the inference protocol.

What the client sent is what the upstream gets: the very bytes where nothing had to change, the
caller's metadata, and never more time than the caller has left. Its statuses come back as
`UpstreamError`s that keep its code; its texts only where they explain the caller's own mistake and
name no file, address or stack.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from guard.config import Tls, split_address
from guard.errors import ConfigError, GuardError, UpstreamError
from guard.gateway import identity, protocol

Metadata = tuple[tuple[str, str | bytes], ...]

PATIENCE = 3
READY_TIMEOUT = 1.0  # seconds
# fmt: off
_OWN_HEADERS = frozenset((
    "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "date",
    "host", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "server",
    "te", "trailer", "transfer-encoding", "upgrade", "user-agent",
))
# fmt: on
# A path, a file of code or of a model, an address or an object in memory, a stack.
_INSIDE = re.compile(
    r"/[\w.+-]+/[\w.+-]|[a-z]:\\|[\w-]\.(?:pyx?|pt|onnx|plan|npz|so|toml|pem|jsonl?|cc|cpp|hpp?)\b"
    r"|0x[0-9a-f]{5}|\bobject at\b|<[\w.]+\.\w|traceback|\bline \d+, in\b|site-packages"
    r"|\b(?:pyarrow|numpy|msgspec|onnxruntime|PIL|asyncio|builtins|torch|tensorflow)\.\w",
    re.IGNORECASE | re.ASCII,
)
_CALLERS_FAULT = frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "OUT_OF_RANGE", "UNIMPLEMENTED"})
_PASSING = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "ABORTED"})


@dataclass(frozen=True, slots=True)
class Question:
    """One request on its way to the upstream."""

    request: protocol.Message  # ModelInferRequest, without what only guard understands
    data: bytes | None  # the same as received, where nothing changed
    pixels: NDArray[np.float32]  # the images as guard sees them
    timeout: float  # seconds
    metadata: Metadata = ()


class Reply(NamedTuple):
    """The upstream's answer, and the metadata to hand on."""

    response: protocol.Message  # ModelInferResponse
    leading: Metadata = ()
    trailing: Metadata = ()


class Upstream(Protocol):
    """A classifier to guard."""

    @property
    def stuck(self) -> bool:
        """Whether it hangs in this very process, which only a restart ends."""

    async def infer(self, question: Question) -> Reply:
        """Its answer; raises `UpstreamError`, or `InputError` for what it cannot take."""

    async def ready(self) -> bool:
        """Whether it can answer now."""

    async def metadata(self) -> protocol.Message:
        """Its ModelMetadataResponse."""

    async def close(self) -> None:
        """Let go of connections and threads."""


def forwardable(metadata: Iterable[tuple[str, str | bytes]] | None) -> Metadata:
    """The metadata that is the caller's own: without transport, hop-by-hop and reserved keys.

    A token that was shown to this gateway stays here: whoever got it could be its bearer.
    """
    kept = _OWN_HEADERS if identity.current().kind != "token" else _OWN_HEADERS | {"authorization"}
    return tuple(
        (key, value)
        for key, value in metadata or ()
        if key not in kept and not key.startswith(("grpc-", ":"))
    )


class GrpcUpstream:
    """A server that speaks the inference protocol, behind one HTTP/2 connection."""

    stuck = False  # it hangs elsewhere

    def __init__(
        self, address: str, *, model: str, tls: Tls, max_message_bytes: int, known_as: str = ""
    ) -> None:
        self.model = model
        self._known_as = known_as or model  # the name that clients use for it
        self._channel = _channel(address, tls, max_message_bytes)
        self._calls: dict[str, Any] = {}
        self._said_ready, self._late = False, 0  # what it said last, what it has not answered since

    async def infer(self, question: Question) -> Reply:
        """Ask it; cancelling this cancels the call."""
        data = question.data or question.request.SerializeToString()
        path = protocol.INFERENCE_METHODS["ModelInfer"].path
        answer, leading, trailing = await self.call(
            path, data, timeout=question.timeout, metadata=question.metadata
        )
        try:
            response = protocol.ModelInferResponse.FromString(answer)
        except Exception as error:
            raise UpstreamError(
                "the upstream's answer cannot be parsed", code="INTERNAL"
            ) from error
        return Reply(response, leading, trailing)

    async def call(
        self, path: str, data: bytes, *, timeout: float, metadata: Metadata = ()
    ) -> tuple[bytes, Metadata, Metadata]:
        """Any unary call as bytes: the answer, its leading and its trailing metadata."""
        stub = self._calls.get(path)
        if stub is None:
            stub = self._calls[path] = self._channel.unary_unary(path)
        if timeout <= 0:
            raise TimeoutError
        call = stub(data, timeout=timeout, metadata=metadata)
        try:
            answer = await call
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error
        leading = forwardable(await call.initial_metadata())
        return answer, leading, forwardable(await call.trailing_metadata())

    def stream(self, path: str, *, timeout: float | None, metadata: Metadata = ()) -> Any:
        """A bidirectional call as bytes."""
        return self._channel.stream_stream(path)(timeout=timeout, metadata=metadata)

    async def ready(self) -> bool:
        """Whether it says that the model is ready, within a second.

        One that is busy may be late: what it said last holds until it was late PATIENCE times.
        """
        method = protocol.INFERENCE_METHODS["ModelReady"]
        request = method.request(name=self.model).SerializeToString()
        try:
            answer, _, _ = await self.call(method.path, request, timeout=READY_TIMEOUT)
            self._said_ready, self._late = bool(method.response.FromString(answer).ready), 0
        except Exception as error:
            self._late += 1
            late = isinstance(error, UpstreamError) and error.code == "DEADLINE_EXCEEDED"
            if not late or self._late >= PATIENCE:
                self._said_ready = False
        return self._said_ready

    async def metadata(self) -> protocol.Message:
        """What it says about the model."""
        method = protocol.INFERENCE_METHODS["ModelMetadata"]
        request = method.request(name=self.model).SerializeToString()
        answer, _, _ = await self.call(method.path, request, timeout=5.0)
        return method.response.FromString(answer)

    async def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        await self._channel.close()

    def _renamed(self, text: str) -> str:
        """The same, with the name of the model that clients know."""
        if self.model == self._known_as:
            return text
        own = re.compile(re.escape(self.model), re.IGNORECASE)
        return own.sub(lambda _: self._known_as, text)

    def _error(self, error: grpc.aio.AioRpcError) -> GuardError:
        code, text = error.code().name, _presentable(self._renamed(error.details() or ""))
        if code == "UNAVAILABLE":
            message = "the upstream cannot be reached"
        elif code == "DEADLINE_EXCEEDED":
            message = "the upstream did not answer in time"
        elif code in _CALLERS_FAULT and text:
            message = f"upstream: {text}"
        else:
            message = f"the upstream failed with {code}"
        return UpstreamError(message, code=code, retryable=code in _PASSING)


def _channel(address: str, tls: Tls, max_message_bytes: int) -> grpc.aio.Channel:
    scheme, _, target = address.partition("://")
    split_address(target, key="upstream")
    options = [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # A restarted upstream is found again within about a second.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if scheme == "grpc":
        return grpc.aio.insecure_channel(target, options)
    ca, key, cert = (_pem(path) for path in (tls.ca, tls.key, tls.cert))
    credentials = grpc.ssl_channel_credentials(ca, key, cert)
    return grpc.aio.secure_channel(target, credentials, options)


def _pem(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes() if path else None
    except OSError as error:
        raise ConfigError(f"tls: {path}: {error.strerror}", key="tls") from error


def _presentable(text: str) -> str:
    """An upstream's complaint, where it is one line and tells nothing of the upstream's inside."""
    return "" if "\n" in text or _INSIDE.search(text) else text
