"""A model server for tests, on a real loopback port: `guard.testing` is its public face."""

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from guard.gateway import codec, protocol

Arrays = Mapping[str, NDArray[Any]]
Answer = Callable[[Arrays], Arrays]

CLASSES = ("red", "green", "blue")
SHAPE = (3, 8, 8)
SHARPNESS = 20.0  # logits per unit of mean brightness


def answer_colour(inputs: Arrays) -> Arrays:
    """What the fake server's model says: probabilities and label of the strongest channel."""
    logits = SHARPNESS * inputs["images"].astype(np.float32).mean(axis=(2, 3))
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
    return {"probabilities": probabilities, "label": probabilities.argmax(1).astype(np.int64)}


class FakeUpstream:
    """A model server on a loopback port that answers what `answer(inputs)` returns.

    `delay` seconds pass before each answer; `error` is a (gRPC code, text) to fail with instead;
    `edit(response)` may spoil a response; `credentials` are for TLS. `requests`, `received` (their
    bytes), `metadata` and `deadlines` record what arrived, `cancelled` counts who left.
    """

    def __init__(
        self,
        answer: Answer = answer_colour,
        *,
        delay: float = 0.0,
        error: tuple[grpc.StatusCode, str] | None = None,
        edit: Callable[[protocol.Message], None] | None = None,
        port: int = 0,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self.answer, self.delay, self.error, self.edit, self.port = answer, delay, error, edit, port
        self.credentials = credentials
        self.requests: list[protocol.Message] = []
        self.received: list[bytes] = []
        self.metadata: list[dict[str, str | bytes]] = []
        self.deadlines: list[float | None] = []
        self.cancelled = 0
        self.is_ready = True

    @property
    def address(self) -> str:
        """For `upstream = ...`."""
        return f"grpc://127.0.0.1:{self.port}"

    async def __aenter__(self) -> "FakeUpstream":
        options = [("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]
        self._server = grpc.aio.server(options=options)
        names = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata")
        behaviours: dict[str, Any] = {name: getattr(self, f"_{name}") for name in names}
        behaviours["ModelInfer"] = self._infer
        self._server.add_generic_rpc_handlers(
            (
                protocol.service_handler(
                    protocol.INFERENCE_METHODS, behaviours, raw_requests={"ModelInfer"}
                ),
                _WiderCalls(self),
            )
        )
        target = f"127.0.0.1:{self.port}"
        if self.credentials is None:
            self.port = self._server.add_insecure_port(target)
        else:
            self.port = self._server.add_secure_port(target, self.credentials)
        await self._server.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._server.stop(0)

    async def _infer(self, data: bytes, context: Any) -> protocol.Message:
        request = protocol.ModelInferRequest.FromString(data)
        self.received.append(data)
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        self.deadlines.append(context.time_remaining())
        try:
            await asyncio.sleep(self.delay)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            await context.abort(*self.error)
        await context.send_initial_metadata((("x-upstream-leading", "yes"),))
        context.set_trailing_metadata((("x-upstream-trailing", "yes"),))
        return self.respond(request)

    def respond(self, request: protocol.Message) -> protocol.Message:
        """The answer to a request, as it would travel."""
        inputs = {t.name: codec.read_input(request, t.name) for t in request.inputs}
        answer = self.answer(inputs)
        asked = [output.name for output in request.outputs] or list(answer)
        response = codec.build_response(
            request,
            {name: answer[name] for name in asked},
            parameters={"upstream_parameter": "kept"},
            model_version="7",
        )
        if self.edit is not None:
            self.edit(response)
        return response

    async def _ServerLive(self, _request: Any, _context: Any) -> protocol.Message:  # noqa: N802
        return protocol.ServerLiveResponse(live=True)

    async def _ServerReady(self, _request: Any, _context: Any) -> protocol.Message:  # noqa: N802
        return protocol.ServerReadyResponse(ready=self.is_ready)

    async def _ModelReady(self, _request: Any, _context: Any) -> protocol.Message:  # noqa: N802
        return protocol.ModelReadyResponse(ready=self.is_ready)

    async def _ServerMetadata(self, _request: Any, _context: Any) -> protocol.Message:  # noqa: N802
        return protocol.ServerMetadataResponse(name="fake", version="1")

    async def _ModelMetadata(self, request: Any, _context: Any) -> protocol.Message:  # noqa: N802
        about = protocol.ModelMetadataResponse(name=request.name, versions=["7"], platform="fake")
        about.inputs.add(name="images", datatype="FP32", shape=[-1, *SHAPE])
        about.outputs.add(name="probabilities", datatype="FP32", shape=[-1, len(CLASSES)])
        about.outputs.add(name="label", datatype="INT64", shape=[-1])
        return about


class _WiderCalls(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Answers any other unary call with its own bytes, and a stream message by message."""

    def __init__(self, upstream: FakeUpstream) -> None:
        self._upstream = upstream

    def service(self, details: Any) -> grpc.RpcMethodHandler:
        if details.method.endswith("ModelStreamInfer"):
            return grpc.stream_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(self._echo)

    async def _echo(self, data: bytes, _context: Any) -> bytes:
        return data

    async def _stream(self, requests: Any, _context: Any) -> Any:
        async for data in requests:
            self._upstream.received.append(data)
            yield data
