"""The calls about suspects: any bytes, over a desk and a real store."""

import random
from collections.abc import Hashable
from typing import Any

from guard.gateway import protocol
from guard.gateway.desk import MAX_ROWS, Desk
from guard.gateway.identity import CURRENT, ROLES, Identity
from guard.gateway.suspects import SuspectCalls
from tests.fuzz.messages import shaken
from tests.fuzz.target import demand
from tests.fuzz.targets.wire import Served
from tests.gateway.shelf import MISSING, MODEL, PACK, filled, open_shelf

COUNT = 12
SOMEBODY = Identity("jwt:somebody", frozenset(ROLES), "jwt:somebody", "token")


class Suspects(Served):
    """Every call about suspects; the first byte says which."""

    name = "suspects"

    def __init__(self) -> None:
        super().__init__()
        self._before = CURRENT.set(SOMEBODY)
        self._store = open_shelf(self.folder / "shelf")
        ids = [one.id for one in filled(self._store, COUNT, client=SOMEBODY.name)]
        texts = (*ids, MISSING, MODEL, PACK, SOMEBODY.name, "detector", "jwt:camera", "1,2", "-")
        self.words = (*self.words, *(text.encode() for text in texts))
        self._desk = Desk(self._store)
        self._calls = SuspectCalls(self.servicer, self._desk).calls()
        self._kinds = [protocol.GUARD_METHODS[name].request for name in self._calls]
        self.secrets = (str(self.folder), "inner-canary")

    def close(self) -> None:
        """The store last."""
        CURRENT.reset(self._before)
        self._desk.close()
        super().close()
        self._store.close()

    def seeds(self) -> list[bytes]:
        """A good request of each call, with and without filters."""
        ids = [row.id for row in self._store.rows().rows]
        one = {"id": ids[0]}
        some: dict[str, Any] = {
            "GetSuspect": [one, {**one, "picture": True, "similar": 3}],
            "ListSuspects": [{}, {"filter": {"ids": ids}, "order": 1, "limit": 3}],
            "CountSuspects": [{}, {"filter": {"decision": 2, "state": 1, "sampled": False}}],
            "ClaimSuspects": [{"limit": 2}],
            "LabelSuspects": [{"ids": ids[:2], "label": 1}, {"ids": ids, "label": 3}],
            "SubmitFeedback": [{**one, "label": 2}],
            "ExportSuspects": [{"limit": 2}, {"filter": {"label": 1, "taken_from": 5.0}}],
            "EraseSuspects": [{"filter": {"ids": ids[:1]}}, {"filter": {"client_name": "x"}}],
        }
        return [
            bytes([index]) + kind(**fields).SerializeToString()
            for index, (name, kind) in enumerate(zip(self._calls, self._kinds, strict=True))
            for fields in some.get(name, [{}])
        ]

    def mutate(self, data: bytes, rng: random.Random) -> bytes:
        """Another message for the same call."""
        first = data[:1] or b"\0"
        kind = self._kinds[first[0] % len(self._kinds)]
        return first + shaken(kind, data[1:], rng, self.words)

    def run(self, data: bytes) -> Hashable:
        """One call; what was erased is put back."""
        index = data[0] % len(self._kinds) if data else 0
        name = list(self._calls)[index]
        reply, seen = self.answer(self._calls[name], data[1:])
        if reply is None:
            return seen
        self._judge(name, self._kinds[index].FromString(data[1:]), reply)
        if name == "EraseSuspects":
            filled(self._store, COUNT, client=SOMEBODY.name)
        return index, seen

    def _judge(self, name: str, request: Any, reply: Any) -> None:
        """What may not be answered, whatever was asked."""
        rows = [*getattr(reply, "rows", ()), *getattr(reply, "similar", ())]
        exported = getattr(reply, "suspects", ())
        demand(len(rows) <= MAX_ROWS or name == "LabelSuspects", "a page without end")
        demand(len(exported) <= MAX_ROWS, "an export without pages")
        if name == "GetSuspect":
            demand(reply.row.id == request.id, "another suspect than was asked for")
            demand(reply.HasField("suspect") == request.picture, "a picture nobody asked for")
        if name == "LabelSuspects":
            demand({row.id for row in rows} == set(request.ids), "others were labelled")
        if name == "EraseSuspects":
            demand(request.filter.ListFields(), "all erased by accident")
