"""The door: who calls is known, and may do it, before anything else looks at the call.

A token is judged on the headers alone, so that whoever is refused never gets to send a body. A
certificate is known once the call is there: the body then lies in a buffer, not yet decoded.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio

from guard import metrics
from guard.errors import GuardError
from guard.gateway import permissions
from guard.gateway.door import decoded, kind_of, refusing
from guard.gateway.identity import CURRENT, Authenticator, Identity
from guard.gateway.servicer import fail
from guard.gateway.status import ForbiddenError, UnauthenticatedError

log = logging.getLogger(__name__)


def authorise(identity: Identity, path: str) -> None:
    """Raise ForbiddenError unless this caller may call this path; counts the refusal."""
    if permissions.permitted(path, identity.roles):
        return
    metrics.AUTH_FAILURES.labels("role" if path in permissions.TABLE else "unknown_call").inc()
    raise ForbiddenError("not permitted to this caller")


def count_refusal(error: UnauthenticatedError) -> None:
    """Count, by its cause, that nobody knows who calls."""
    metrics.AUTH_FAILURES.labels(error.cause).inc()
    log.info("a caller was not recognised: %s", error.cause)


class Access(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Lets calls through to the services; the first interceptor of a server."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    async def intercept_service(
        self,
        continuation: Callable[[Any], Awaitable[grpc.RpcMethodHandler | None]],
        handler_call_details: Any,
    ) -> grpc.RpcMethodHandler | None:
        """The call's own handler behind the check, or one that refuses."""
        path = handler_call_details.method
        shown = [
            value
            for key, value in handler_call_details.invocation_metadata or ()
            if key == "authorization"
        ]
        try:
            identity = self._authenticator.by_token(shown)
            if identity is not None:
                CURRENT.set(identity)
                authorise(identity, path)
                return await continuation(handler_call_details)
        except UnauthenticatedError as error:
            count_refusal(error)
            return refusing(error)
        except ForbiddenError as error:
            return refusing(error)
        handler = await continuation(handler_call_details)
        return self._behind(handler or _unimplemented(), path)

    def _behind(self, handler: grpc.RpcMethodHandler, path: str) -> grpc.RpcMethodHandler:
        """The same handler, once the certificate has been looked at."""
        kind = kind_of(handler)
        behaviour = getattr(handler, kind)
        decode = handler.request_deserializer
        once = None if handler.request_streaming else decode  # a stream is decoded as it is read

        def begin(request: Any, context: Any) -> Any:
            self._certify(context, path)
            return behaviour(decoded(request, once) if once else request, context)

        async def single(request: Any, context: Any) -> Any:
            try:
                answer = begin(request, context)
            except GuardError as error:
                return fail(context, error)
            return await answer

        async def stream(request: Any, context: Any) -> Any:
            try:
                answers = begin(request, context)
            except GuardError as error:
                return fail(context, error)
            if asyncio.iscoroutine(answers):
                return await answers
            async for answer in answers:
                await context.write(answer)
            return None

        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(
            stream if handler.response_streaming else single,
            request_deserializer=decode if handler.request_streaming else None,
            response_serializer=handler.response_serializer,
        )

    def _certify(self, context: Any, path: str) -> None:
        """Take down whom the certificate names, and refuse them what they may not do."""
        try:
            identity = self._authenticator.by_certificate(*_names(context.auth_context()))
        except UnauthenticatedError as error:
            count_refusal(error)
            raise
        CURRENT.set(identity)
        authorise(identity, path)


def _names(shown: Mapping[str, Sequence[bytes]]) -> tuple[list[str], list[str]]:
    """The URIs and common names of the certificate that gRPC has verified."""
    try:
        uris = [value.decode() for value in shown.get("peer_uri", ())]
        return uris, [value.decode() for value in shown.get("x509_common_name", ())]
    except UnicodeDecodeError:
        raise UnauthenticatedError("certificate") from None


def _unimplemented() -> grpc.RpcMethodHandler:
    """Stands in for a call that does not exist, so that only the permitted learn that."""

    async def unknown(_requests: Any, context: Any) -> None:
        context.set_code(grpc.StatusCode.UNIMPLEMENTED)
        context.set_details("Method not found!")

    return grpc.stream_stream_rpc_method_handler(unknown)
