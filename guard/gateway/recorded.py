"""What of the gateway's life is audited: starts and stops, refusals, what operators do."""

import hashlib
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from typing import Any, NamedTuple

import grpc
import grpc.aio

from guard.config import Config, canonical
from guard.gateway import permissions
from guard.gateway.audit.recorder import OFF, Audit
from guard.gateway.guarded import GuardedModel
from guard.gateway.identity import current
from guard.gateway.status import Failure, code_of

Behaviour = Callable[[Any, Any], Awaitable[Any]]
REFUSALS = {
    grpc.StatusCode.UNAUTHENTICATED: "refused.identity",
    grpc.StatusCode.PERMISSION_DENIED: "refused.permission",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "refused.limit",
}


class Call(NamedTuple):
    """The call that is being handled, and where it is recorded."""

    audit: Audit
    rpc: str


UNRECORDED = Call(OFF, "")
CALL: ContextVar[Call] = ContextVar("guard_audited_call", default=UNRECORDED)


class Recorded(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Tells every call where it is recorded; before all other interceptors."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    async def intercept_service(
        self,
        continuation: Callable[[Any], Awaitable[grpc.RpcMethodHandler | None]],
        handler_call_details: Any,
    ) -> grpc.RpcMethodHandler | None:
        """The call's own handler."""
        path = handler_call_details.method
        rpc = path.rpartition("/")[2] if path in permissions.TABLE else "unknown"
        CALL.set(Call(self._audit, rpc))
        return await continuation(handler_call_details)


def record_refusal(failed: Failure) -> None:
    """A call failed: if it was refused, for who made it, for what it is or for how much, say so."""
    audit, rpc = CALL.get()
    if not audit.enabled or failed.metric == "upstream":
        return
    event = "refused.permission" if failed.metric == "refused" else REFUSALS.get(failed.code)
    if event is not None:
        name = "" if event == "refused.identity" else current().name
        audit.record(event, actor=name, outcome="refused", rpc=rpc, why=failed.metric)


def recorded(behaviour: Behaviour) -> Behaviour:
    """A call of an operator: its answer leaves once its record is durable."""

    async def call(request: Any, context: Any) -> Any:
        audit, rpc = CALL.get()
        try:
            answer = await behaviour(request, context)
        except Exception as error:
            if (code := code_of(error)) not in REFUSALS:
                audit.record("admin.call", actor=current().name, outcome=code.name, rpc=rpc)
            raise
        await audit.act("admin.call", actor=current().name, rpc=rpc)
        return answer

    return call


async def record_start(
    audit: Audit, config: Config, models: Iterable[GuardedModel], version: str
) -> None:
    """What starts, by which settings, with which packs; AuditError where that cannot be said."""
    digest = hashlib.sha256(canonical(config)).hexdigest()
    for model in models:
        pack = model.pipeline.pack
        audit.record("gateway.pack", model=model.name, pack=pack.name, digest=pack.digest)
    await audit.act("gateway.start", version=version, config=f"sha256:{digest}")
