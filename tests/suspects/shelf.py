# ruff: noqa: ARG002 - a store's arguments, whether this one looks at them or not
"""A store in memory that fails when it is told to, and suspects to put there."""

import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from guard.errors import StoreError
from guard.suspects.record import Counts, Filter, Floats, Page, Review, Row, Suspect
from guard.suspects.store import Order
from guard.verdict import Decision, Verdict


class Shelf:
    """See `Store`. `broken`: put raises this; `hanging`: put waits for it first."""

    def __init__(self) -> None:
        self.kept: list[Suspect] = []
        self.batches: list[int] = []
        self.broken: Exception | None = None
        self.hanging = threading.Event()
        self.hanging.set()
        self.asked = 0  # puts
        self.erased_at: float | None = None
        self.retained: list[tuple[float | None, int | None]] = []
        self.rotations = 0
        self.size = 0
        self.closed = False

    def pseudonym(self, name: str) -> str:
        """Not the name."""
        return f"pseudonym-of-{len(name)}"

    def suspect_id(self, image: Floats, *, client: str, tenant: str, model: str, pack: str) -> str:
        """Told apart by the pixels."""
        return f"{abs(hash(image.tobytes())):032x}"

    def near(self, image: Floats) -> tuple[int, ...]:
        """One code."""
        return (int(image.sum()),)

    def put(self, suspects: Sequence[Suspect]) -> None:
        """Keep them, unless it is to fail."""
        self.asked += 1
        self.hanging.wait(30)
        if self.broken is not None:
            raise self.broken
        if any(suspect.trace == "poison" for suspect in suspects):
            raise ValueError("a canary in the text")
        self.kept += suspects
        self.batches.append(len(suspects))

    def counts(self, wanted: Filter = Filter()) -> Counts:  # noqa: B008 - frozen
        """As many as were put."""
        if self.broken is not None:
            raise self.broken
        states = {"open": len(self.kept), "agreed": 0, "disputed": 0}
        return Counts(len(self.kept), self.size, states, {})  # type: ignore[arg-type]

    def rows(
        self,
        wanted: Filter = Filter(),  # noqa: B008 - frozen
        *,
        order: Order = "newest",
        after: str | None = None,
        limit: int = 50,
    ) -> Page:
        """The first one."""
        return Page(tuple(row_of(one) for one in self.kept[:limit]), None)

    def erased_since(self) -> float | None:
        """As set."""
        return self.erased_at

    def rotate(self) -> int:
        """Counted."""
        self.rotations += 1
        self.erased_at = None
        return len(self.kept)

    def upkeep(self, *, keep_seconds: float | None, quota_bytes: int | None) -> int:
        """Noted; what is over the quota goes."""
        self.retained.append((keep_seconds, quota_bytes))
        if quota_bytes is not None:
            self.size = min(self.size, quota_bytes)
            self.erased_at = time.time()
            return 1
        return 0

    def close(self) -> None:
        """Noted."""
        self.closed = True

    def get(self, suspect_id: str) -> Suspect:
        """Not needed here."""
        raise NotImplementedError

    def row(self, suspect_id: str) -> Row:
        """Not needed here."""
        raise NotImplementedError

    def similar(self, suspect_id: str, limit: int = 20, *, tenant: str | None = None) -> list[Row]:
        """Not needed here."""
        raise NotImplementedError

    def claim(
        self, reviewer: str, wanted: Filter, *, limit: int = 1, seconds: float = 300.0
    ) -> list[Row]:
        """Not needed here."""
        raise NotImplementedError

    def review(self, ids: Sequence[str], review: Review, *, required: int = 1) -> list[Row]:
        """Not needed here."""
        raise NotImplementedError

    def undo(self, reviewer: str, *, required: int = 1) -> list[Row]:
        """Not needed here."""
        raise NotImplementedError

    def erase(self, wanted: Filter) -> int:
        """Not needed here."""
        raise NotImplementedError


def suspect(number: int = 0, *, trace: str = "", side: int = 4) -> Suspect:
    """One of many, all different."""
    image = np.full((3, side, side), (number % 97) / 97, np.float32)
    return Suspect(
        id=f"{number:032x}",
        taken=1.7e9 + number,
        model="tiny",
        pack="sha256:0",
        tenant="",
        client="pseudonym",
        near=(),
        sampled=False,
        budget=0.01,
        verdict=Verdict(Decision.FLAG, 0.004, 1),
        image=image,
        evidence=np.zeros(3, np.float32),
        probabilities=np.full(3, 1 / 3, np.float32),
        upstream=None,
        noise_index=0,
        trace=trace,
    )


def suspects(count: int) -> list[Suspect]:
    """So many."""
    return [suspect(number) for number in range(count)]


def row_of(one: Suspect) -> Row:
    """What an index would know of it."""
    return Row(
        id=one.id,
        taken=one.taken,
        model=one.model,
        pack=one.pack,
        tenant=one.tenant,
        client=one.client,
        sampled=one.sampled,
        decision=one.verdict.decision,
        p_value=one.verdict.p_value,
        predicted=one.verdict.label,
        alarms=one.alarms,
        seen=1,
        bytes=one.image.nbytes,
        state="open",
        label=None,
        reviews=(),
    )


AWAY = StoreError("the disk is full")


def poisoned(number: int) -> Suspect:
    """One that the shelf refuses for what it is."""
    return replace(suspect(number), trace="poison")
