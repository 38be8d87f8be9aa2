"""Open calls: how many, shared out among connections, and how long a request may take to arrive.

gRPC counts a call from its head on and waits for its body without an end: a few connections that
send heads, or bodies drop by drop, would fill `maximum_concurrent_rpcs` and lock out everybody
else. So that limit is not used. Unary calls are taken as streams of one message, which look the
same on the wire, and the door counts them and reads that message itself. It also looks at the size
of the metadata: `grpc.max_metadata_size` lets a megabyte in (grpcio 1.85).
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from guard import metrics
from guard.config.limits import Limits
from guard.errors import GuardError, InputError, OverloadedError
from guard.gateway import protocol
from guard.gateway.servicer import fail, fail_with
from guard.gateway.shares import Shares
from guard.gateway.status import Failure, failure

INFER = protocol.INFERENCE_METHODS["ModelInfer"].path
TOGETHER = 0.02  # seconds
MAX_METADATA = 16 << 10  # bytes of a call's metadata, names and values


class LateBodyError(GuardError, TimeoutError):
    """A request's head came, and its body did not follow in time."""


class Door(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Lets so many calls in at once, and gives each so many seconds to send its request.

    `room(context)` raises OverloadedError while no inference is taken on, of this call's caller or,
    without a context, of anybody: then it is turned away by its head alone, before anything else is
    done for it, which is what an overload is made of.
    """

    def __init__(self, limits: Limits, room: Callable[..., None] = lambda *_: None) -> None:
        self.shares = Shares(limits.max_open_calls)
        self._room, self._away = room, (-math.inf, failure(OverloadedError("")))
        self._body_timeout = limits.body_timeout
        metrics.OPEN_CALLS.set_function(lambda: self.shares.taken)

    async def intercept_service(
        self,
        continuation: Callable[[Any], Awaitable[grpc.RpcMethodHandler | None]],
        handler_call_details: Any,
    ) -> grpc.RpcMethodHandler | None:
        """The call's own handler behind the door."""
        if handler_call_details.method == INFER:
            try:
                self._room()
            except OverloadedError as error:
                return refusing(self._turned_away(error))
        given = handler_call_details.invocation_metadata or ()
        if sum(len(key) + len(value) for key, value in given) > MAX_METADATA:
            return refusing(InputError(f"more than {MAX_METADATA} bytes of metadata"))
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        if handler.request_streaming or handler.response_streaming:
            return self._streaming(handler)
        room = self._room if handler_call_details.method == INFER else None
        return grpc.stream_unary_rpc_method_handler(
            self._unary(handler.unary_unary, handler.request_deserializer, room),
            response_serializer=handler.response_serializer,
        )

    def _turned_away(self, error: OverloadedError) -> Failure:
        """One answer for all that are turned away within TOGETHER seconds: it costs to make one."""
        made, failed = self._away
        if time.monotonic() - made > TOGETHER:
            failed = failure(error)
            self._away = (time.monotonic(), failed)
        return failed

    def _unary(
        self,
        behaviour: Callable[[Any, Any], Awaitable[Any]],
        decode: Callable[[bytes], Any] | None,
        room: Callable[[Any], None] | None,
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        async def answer(_requests: Any, context: Any) -> Any:
            try:
                if room is not None:
                    room(context)
                data = await self._body(context)
                request = data if decode is None else decoded(data, decode)
            except OverloadedError as error:
                return fail_with(context, self._turned_away(error))
            except (InputError, LateBodyError) as error:
                return fail(context, error)
            return await behaviour(request, context)

        return self._counted(answer)

    def _streaming(self, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        """A stream counts as long as it is open; it has no one body."""
        kind = kind_of(handler)
        behaviour = getattr(handler, kind)

        async def answer(request: Any, context: Any) -> Any:
            answers = behaviour(request, context)
            if not hasattr(answers, "__aiter__"):
                return await answers
            async for one in answers:
                await context.write(one)
            return None

        return getattr(grpc, f"{kind}_rpc_method_handler")(
            self._counted(answer), handler.request_deserializer, handler.response_serializer
        )

    def _counted(
        self, behaviour: Callable[[Any, Any], Awaitable[Any]]
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        """The same behaviour, which holds one place while it runs."""

        async def call(request: Any, context: Any) -> Any:
            caller = context.peer()
            if not self.shares.take(caller):
                return fail(context, OverloadedError("too many calls are open"))
            try:
                return await behaviour(request, context)
            finally:
                self.shares.give(caller)

        return call

    async def _body(self, context: Any) -> bytes:
        """The request's bytes. LateBodyError, or InputError where there is none."""
        try:
            async with asyncio.timeout(self._body_timeout):
                data = await context.read()
        except TimeoutError:
            seconds = f"{self._body_timeout:g}"
            raise LateBodyError(f"the request did not arrive within {seconds} s") from None
        if data is grpc.aio.EOF:
            raise InputError("the call came without a request")
        return bytes(data)


def kind_of(handler: grpc.RpcMethodHandler) -> str:
    """As gRPC names it: `unary_unary`, `stream_unary`, `unary_stream` or `stream_stream`."""
    sent, answered = handler.request_streaming, handler.response_streaming
    return f"{'stream' if sent else 'unary'}_{'stream' if answered else 'unary'}"


def refusing(error: Exception | Failure) -> grpc.RpcMethodHandler:
    """A handler for a call of any kind that fails without reading what is sent."""
    failed = error if isinstance(error, Failure) else failure(error)

    async def refuse(_requests: Any, context: Any) -> None:
        fail_with(context, failed)

    return grpc.stream_stream_rpc_method_handler(refuse)


def decoded(data: bytes, decode: Callable[[bytes], Any]) -> Any:
    """A request as a message. InputError when it is none."""
    try:
        return decode(data)
    except Exception as error:
        raise InputError("the request cannot be parsed") from error
