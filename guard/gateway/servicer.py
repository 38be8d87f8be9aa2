"""The calls of the inference protocol: who is asked, for how long, what a failure becomes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc

from guard import metrics
from guard.config import Gateway
from guard.errors import InputError, OverloadedError, UnknownModelError
from guard.gateway import codec, protocol
from guard.gateway.admission import away
from guard.gateway.guarded import GuardedModel, Served
from guard.gateway.identity import ANONYMOUS, current
from guard.gateway.limits import Limiter
from guard.gateway.recorded import record_refusal
from guard.gateway.shares import Shares
from guard.gateway.status import Failure, code_of, failure
from guard.gateway.upstream import GrpcUpstream, Metadata, forwardable

Behaviour = Callable[[Any, Any], Awaitable[Any]]
NAME = "guard"
AWAY = 0.5  # seconds, about, for whom there is no room


def answered(behaviour: Behaviour) -> Behaviour:
    """A call whose errors become statuses by the table of `status.py`."""

    async def call(request: Any, context: Any) -> Any:
        try:
            return await behaviour(request, context)
        except asyncio.CancelledError:
            metrics.error("cancelled")
            raise
        except Exception as error:
            return fail(context, error)

    return call


def fail(context: Any, error: Exception) -> None:
    """End a call with an error's status, once its behaviour returns.

    Not with `context.abort`: the exception that it raises ties the request's bytes into a cycle,
    and refused requests would fill the memory until the next full garbage collection.
    """
    fail_with(context, failure(error))


def fail_with(context: Any, failed: Failure) -> None:
    """The same where the status is known."""
    metrics.error(failed.metric)
    record_refusal(failed)
    context.set_code(failed.code)
    context.set_details(failed.message)
    context.set_trailing_metadata(failed.trailing)


class InferenceServicer:
    """`inference.GRPCInferenceService` over the guarded models, and the pass-through if any.

    `reserved` are the upstreams' own names of guarded models: asking for one of those would walk
    around the defence, so here they do not exist.
    """

    def __init__(
        self,
        models: Mapping[str, GuardedModel],
        gateway: Gateway,
        *,
        passthrough: GrpcUpstream | None = None,
        limiter: Limiter | None = None,
        version: str = "",
    ) -> None:
        self.models, self.gateway, self.passthrough = models, gateway, passthrough
        self.limiter, self.version = limiter, version
        self.places = Shares(gateway.max_in_flight)
        self.received = 0  # bytes of inference requests since the start
        self.reserved = {"", *(model.model.upstream_model for model in models.values())}

    def handler(self) -> grpc.GenericRpcHandler:
        """The six calls, ready for a server."""
        behaviours = {
            "ServerLive": self.server_live,
            "ServerReady": self.server_ready,
            "ModelReady": self.model_ready,
            "ServerMetadata": self.server_metadata,
            "ModelMetadata": self.model_metadata,
            "ModelInfer": self.model_infer,
        }
        return protocol.service_handler(
            protocol.INFERENCE_METHODS,
            {name: answered(behaviour) for name, behaviour in behaviours.items()},
            raw_requests=frozenset(behaviours),
        )

    async def server_live(self, _data: bytes, _context: Any) -> protocol.Message:
        """The process answers, so it lives; unless a run of a defence hangs."""
        return protocol.ServerLiveResponse(live=self.live())

    def live(self) -> bool:
        """Whether there is no reason to restart the process."""
        return not any(model.stuck for model in self.models.values())

    async def server_ready(self, _data: bytes, _context: Any) -> protocol.Message:
        """Every pack is loaded (or there would be no server) and every upstream is ready."""
        return protocol.ServerReadyResponse(ready=await self.ready())

    async def ready(self) -> bool:
        """Whether every guarded model would answer now."""
        return all(await asyncio.gather(*(model.ready() for model in self.models.values())))

    async def model_ready(self, data: bytes, context: Any) -> protocol.Message:
        """Whether one model would answer now."""
        request = codec.parse(protocol.ModelReadyRequest, data)
        if request.name in self.models:
            ready = await self.models[request.name].ready()
            return protocol.ModelReadyResponse(ready=ready)
        return await self._pass_on("ModelReady", request.name, data, context)

    async def server_metadata(self, _data: bytes, _context: Any) -> protocol.Message:
        """Name and version."""
        return protocol.ServerMetadataResponse(name=NAME, version=self.version)

    async def model_metadata(self, data: bytes, context: Any) -> protocol.Message:
        """Inputs and outputs of one model."""
        request = codec.parse(protocol.ModelMetadataRequest, data)
        if request.name in self.models:
            return await self.models[request.name].metadata()
        return await self._pass_on("ModelMetadata", request.name, data, context)

    async def model_infer(self, data: bytes, context: Any) -> protocol.Message:
        """One inference request, counted, bounded in number and time."""
        self.received += len(data)
        caller = _caller(context)
        if not self.places.take(caller):
            raise _full()
        metrics.IN_FLIGHT.inc()
        try:
            return await self._infer(data, context)
        finally:
            self.places.give(caller)
            metrics.IN_FLIGHT.dec()

    @property
    def in_flight(self) -> int:
        """Inference requests being worked on."""
        return self.places.taken

    def check_room(self, context: Any = None) -> None:
        """Raise OverloadedError where no more requests are taken on, from this call's caller."""
        places = self.places
        if not (places.free_for(_caller(context)) if context else places.taken < places.limit):
            raise _full()

    def seconds(self, context: Any) -> float:
        """The seconds this call may take: the caller's, at most the server's."""
        left = context.time_remaining()
        limit = self.gateway.request_timeout
        return limit if left is None else min(left, limit)

    async def charge(self, context: Any, images: int = 1) -> None:
        """Take images from what the caller of this call may send; an OverloadedError if too many.

        A call that carries none, or none that guard looks at, counts as one.
        """
        if self.limiter is not None:
            await self.limiter.charge(current(), context.peer(), images)

    def defended(self, name: str) -> bool:
        """Whether a model must not be reached past its defence, under any of its names."""
        return name in self.models or name in self.reserved

    async def _infer(self, data: bytes, context: Any) -> protocol.Message:
        try:
            request = codec.parse(protocol.ModelInferRequest, data)
        except InputError:
            await self.charge(context)
            raise
        model = self.models.get(request.model_name)
        if model is None:
            await self.charge(context)
            return await self._infer_undefended(request, context)
        with model.uses:  # from here to the answer it is this one, whatever is promoted meanwhile
            return await self._infer_defended(model, request, data, context)

    async def _infer_defended(
        self, model: GuardedModel, request: protocol.Message, data: bytes, context: Any
    ) -> protocol.Message:
        start = time.perf_counter()
        code = "OK"
        try:
            seconds = self.seconds(context)
            images = model.count(request)
            metadata = forwardable(context.invocation_metadata())
            with model.admission.admit(images, seconds):
                await self.charge(context, images)
                async with asyncio.timeout(seconds):
                    served = await model.infer(request, data, timeout=seconds, metadata=metadata)
            return await _send_metadata(served, context)
        except BaseException as error:
            code = code_of(error).name
            raise
        finally:
            model.tally.requests += 1
            model.metrics.request(code, time.perf_counter() - start)

    async def _infer_undefended(self, request: protocol.Message, context: Any) -> protocol.Message:
        """A model that is not ours: on to the pass-through as parsed, its pixels in the message."""
        if self.passthrough is None or self.defended(request.model_name):
            codec.check_request(request)  # what is no request at all is told that first
        refuse_shared_memory(request)
        data = request.SerializeToString()
        return await self._pass_on("ModelInfer", request.model_name, data, context)

    async def _pass_on(self, name: str, model: str, data: bytes, context: Any) -> protocol.Message:
        if self.passthrough is None or self.defended(model):
            raise UnknownModelError(f"no model {model[:100]!r} here")
        method = protocol.INFERENCE_METHODS[name]
        answer, leading, trailing = await self.passthrough.call(
            method.path,
            data,
            timeout=self.seconds(context),
            metadata=forwardable(context.invocation_metadata()),
        )
        response = method.response.FromString(answer)
        return await _send_metadata(Served(response, leading, trailing), context)


def _caller(context: Any) -> str:
    """Whose share of the places it takes: a name's, or the connection's."""
    known = current()
    return str(context.peer()) if known is ANONYMOUS else known.name


def _full() -> OverloadedError:
    return OverloadedError("too many requests are being worked on", retry_after=away(AWAY))


def refuse_shared_memory(request: protocol.Message) -> None:
    """Tensors that point at memory instead of being sent carry pixels past everybody's eyes."""
    for tensor in (*request.inputs, *request.outputs):
        if any(key.startswith(codec.SHARED_MEMORY) for key in tensor.parameters):
            message = f"{tensor.name[:100]}: shared memory is refused, send the tensor itself"
            raise InputError(message, tensor=tensor.name)


async def _send_metadata(served: Served, context: Any) -> protocol.Message:
    leading: Metadata = served.leading
    if leading:
        await context.send_initial_metadata(leading)
    if served.trailing:
        context.set_trailing_metadata(served.trailing)
    return served.response
