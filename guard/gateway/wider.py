"""Triton's calls beyond the standard six: forwarded as bytes where allowed, refused where harmful.

What only reads may pass if the settings list it. A stream may pass for models that are not guarded:
every message on it is looked at. What loads models, or registers memory that pixels would travel
through unseen, is refused always.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from guard.errors import GuardError, UnknownModelError, UpstreamError
from guard.gateway import codec, protocol
from guard.gateway.servicer import InferenceServicer, answered, fail, refuse_shared_memory
from guard.gateway.status import NotOfferedError
from guard.gateway.upstream import GrpcUpstream, forwardable

WHY = {
    "Repository": "models are loaded and unloaded at the upstream itself, not through its guard",
    "Memory": "shared memory would carry pixels past the defence; send tensors in the request",
    "Setting": "an upstream's settings are changed at the upstream itself",
}


class WiderHandler(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Handles the calls of `inference.GRPCInferenceService` that `InferenceServicer` does not."""

    def __init__(self, servicer: InferenceServicer) -> None:
        self._servicer = servicer
        self._allowed = frozenset(servicer.gateway.passthrough_rpcs)

    def service(self, handler_call_details: Any) -> grpc.RpcMethodHandler | None:
        """A handler of bytes for one of these calls, None for what is no call at all."""
        service, _, name = handler_call_details.method.lstrip("/").partition("/")
        if service != protocol.INFERENCE_SERVICE:
            return None
        if name in protocol.STREAM_METHODS:
            behaviour = self._stream if name in self._allowed else _refused_stream
            return grpc.stream_stream_rpc_method_handler(behaviour)
        if name in protocol.FORWARDED_METHODS and name in self._allowed:
            return grpc.unary_unary_rpc_method_handler(answered(self._forward(name)))
        if name in (*protocol.FORWARDED_METHODS, *protocol.REFUSED_METHODS):
            return grpc.unary_unary_rpc_method_handler(answered(_refuse(name)))
        return None

    def _forward(self, name: str) -> Any:
        async def forward(data: bytes, context: Any) -> bytes:
            target, data = self._target(name, data)
            answer, leading, trailing = await target.call(
                f"/{protocol.INFERENCE_SERVICE}/{name}",
                data,
                timeout=self._servicer.seconds(context),
                metadata=forwardable(context.invocation_metadata()),
            )
            if leading:
                await context.send_initial_metadata(leading)
            context.set_trailing_metadata(trailing)
            return answer

        return forward

    def _target(self, name: str, data: bytes) -> tuple[GrpcUpstream, bytes]:
        """Who answers: a guarded model's own upstream (by its name there), or the pass-through."""
        passthrough = self._servicer.passthrough
        if name == "RepositoryIndex":
            if passthrough is None:
                raise NotOfferedError("RepositoryIndex: no pass-through is configured")
            return passthrough, data
        # All of these requests begin like this one: name = 1, version = 2.
        request = codec.parse(protocol.ModelReadyRequest, data)
        model = self._servicer.models.get(request.name)
        if model is None:
            if passthrough is None or self._servicer.defended(request.name):
                raise UnknownModelError(f"no model {request.name[:100]!r} here")
            return passthrough, data
        if not isinstance(model.upstream, GrpcUpstream):
            raise NotOfferedError(f"{name}: {request.name} has no server behind it")
        if model.upstream.model != request.name:
            request.name = model.upstream.model
            data = request.SerializeToString()
        return model.upstream, data

    async def _stream(self, requests: AsyncIterator[bytes], context: Any) -> None:
        problem = await self._relay(requests, context)
        if problem is not None:
            fail(context, problem)

    async def _relay(self, requests: AsyncIterator[bytes], context: Any) -> Exception | None:
        """Both directions at once, until one ends or a message is forbidden; what went wrong."""
        passthrough = self._servicer.passthrough
        if passthrough is None:
            return NotOfferedError("ModelStreamInfer: no pass-through is configured")
        call = passthrough.stream(
            f"/{protocol.INFERENCE_SERVICE}/ModelStreamInfer",
            timeout=context.time_remaining(),
            metadata=forwardable(context.invocation_metadata()),
        )
        upwards = asyncio.create_task(self._upwards(requests, call, context))
        try:
            while (answer := await call.read()) is not grpc.aio.EOF:
                await context.write(answer)
            return _result(upwards)
        except (asyncio.CancelledError, grpc.aio.AioRpcError) as error:
            refused = _result(upwards)
            if refused is None and isinstance(error, asyncio.CancelledError):
                raise
            return refused or UpstreamError("the stream's upstream failed", code="UNAVAILABLE")
        finally:
            upwards.cancel()
            call.cancel()

    async def _upwards(
        self, requests: AsyncIterator[bytes], call: Any, context: Any
    ) -> Exception | None:
        """Every message looked at, then forwarded; the first that may not pass ends the call."""
        try:
            async for data in requests:
                await self._servicer.charge(context)
                request = codec.parse(protocol.ModelInferRequest, data)
                if self._servicer.defended(request.model_name):
                    raise NotOfferedError(
                        "ModelStreamInfer: a guarded model answers ModelInfer only"
                    )
                refuse_shared_memory(request)
                await call.write(request.SerializeToString())
            await call.done_writing()
        except GuardError as error:
            call.cancel()
            return error
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return UpstreamError("the stream's upstream failed", code="UNAVAILABLE")
        return None


def _result(task: "asyncio.Task[Exception | None]") -> Exception | None:
    return task.result() if task.done() and not task.cancelled() else None


def _refuse(name: str) -> Any:
    async def refuse(_data: bytes, _context: Any) -> bytes:
        raise _why_not(name)

    return refuse


async def _refused_stream(_requests: AsyncIterator[bytes], context: Any) -> None:
    fail(context, _why_not("ModelStreamInfer"))


def _why_not(name: str) -> NotOfferedError:
    if name in protocol.REFUSED_METHODS:
        reason = next((why for word, why in WHY.items() if word in name), "refused")
        return NotOfferedError(f"{name}: {reason}")
    return NotOfferedError(f"{name}: not among gateway.passthrough_rpcs")
