"""What every act at the desk goes through: permission, a record in the audit log, bounded time.

Something is shown once the record of it is durable; something is changed once the record of it is.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple, TypeVar

from guard.errors import OverloadedError, StoreError
from guard.gateway import protocol
from guard.gateway.access import authorise
from guard.gateway.audit.record import MAX_DETAILS
from guard.gateway.audit.recorder import Audit
from guard.gateway.identity import Identity
from guard.gateway.recorded import REFUSALS
from guard.gateway.status import code_of, row_of

Via = Literal["rpc", "console"]
THREADS, WAITING = 4, 32
T = TypeVar("T")


class Steps:
    """The steps; `via`: where people come from, `seconds`: that the store may take."""

    def __init__(self, audit: Audit, via: Via, seconds: float) -> None:
        self._audit, self._via, self._seconds = audit, via, seconds
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix=f"desk-{via}")
        self._places = threading.BoundedSemaphore(THREADS + WAITING)

    def close(self) -> None:
        """Take nothing on any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def permit(self, who: Identity, call: str) -> None:
        """Raise ForbiddenError, on record, unless they may make this call."""
        try:
            authorise(who, protocol.GUARD_METHODS[call].path)
        except Exception as error:
            _Act(self._audit, who, "admin.call", call, self._via).failed(error)
            raise

    async def look(
        self,
        who: Identity,
        call: str,
        ask: Callable[[], T],
        *,
        event: str = "admin.call",
        **details: Any,
    ) -> T:
        """Ask the store; the answer leaves once the record of it is durable."""
        self.permit(who, call)
        act = _Act(self._audit, who, event, call, self._via)
        try:
            answer = await self.run(ask)
        except Exception as error:
            act.failed(error)
            raise
        await act.durably(details)
        return answer

    async def change(
        self,
        who: Identity,
        call: str,
        change: Callable[[], T],
        *,
        event: str,
        told: Callable[[T], dict[str, Any]] | None = None,
        seconds: float | None = None,
        **details: Any,
    ) -> T:
        """Change something once the record of it is durable.

        told: makes a second record of what came of it, also where nobody waits for that any more.
        """
        self.permit(who, call)
        act = _Act(self._audit, who, event, call, self._via)
        await act.durably(details)

        def changing() -> T:
            result = change()
            if told is not None:
                act.tell(told(result))
            return result

        try:
            return await self.run(changing, seconds)
        except Exception as error:
            act.failed(error)
            raise

    async def run(self, task: Callable[[], T], seconds: float | None = None) -> T:
        """The store in a thread: few at once, some waiting, none for ever."""
        if not self._places.acquire(blocking=False):
            raise OverloadedError("too many wait for the store of suspects")
        try:
            future = self._threads.submit(task)
        except RuntimeError:
            self._places.release()
            raise StoreError("the store of suspects is closed") from None
        future.add_done_callback(lambda _: self._places.release())
        try:
            async with asyncio.timeout(seconds or self._seconds):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise StoreError("the store of suspects does not answer") from None


class _Act(NamedTuple):
    """Who does what, and where it is recorded."""

    audit: Audit
    who: Identity
    event: str
    call: str
    via: Via

    async def durably(self, details: dict[str, Any]) -> None:
        """Record it; more ids than a record holds take several."""
        rest = {name: value for name, value in details.items() if name != "suspects"}
        ids: list[str] = list(details.get("suspects") or ())
        named = [ids[at : at + MAX_DETAILS] for at in range(0, len(ids), MAX_DETAILS)]
        parts: list[dict[str, Any]] = [{"suspects": part} for part in named] or [{}]
        act, name = self.audit.act, self.who.name
        both = {"rpc": self.call, "via": self.via, **rest}
        await asyncio.gather(*(act(self.event, actor=name, **both, **part) for part in parts))

    def tell(self, details: dict[str, Any]) -> None:
        """Record what came of it."""
        record, name = self.audit.record, self.who.name
        record(self.event, actor=name, rpc=self.call, via=self.via, **details)

    def failed(self, error: Exception) -> None:
        """Record that it was not done; a refusal by RPC is recorded where it is answered."""
        code, record = code_of(error), self.audit.record
        name, both = self.who.name, {"rpc": self.call, "via": self.via}
        if code not in REFUSALS:
            record(self.event, actor=name, outcome=code.name, **both)
        elif self.via != "rpc":
            why = row_of(error).metric
            record(REFUSALS[code], actor=name, outcome="refused", **both, why=why)
