"""The desk where suspects are looked at, labelled and erased: by RPC, and from the console.

What may be asked, and of whose suspects, is decided here; `steps.py` sees to permission, record and
time.
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import NamedTuple

from guard.errors import InputError, StoreError, UnknownSuspectError
from guard.gateway.asked import (
    check_filter,
    check_ids,
    check_label,
    check_limit,
    described,
    unknown,
)
from guard.gateway.audit.recorder import OFF, Audit
from guard.gateway.identity import Identity
from guard.gateway.status import ForbiddenError
from guard.gateway.steps import Steps, Via
from guard.suspects.record import Counts, Filter, Page, Review, Row, Suspect
from guard.suspects.store import Order, Store

MAX_ROWS = 500  # of a page
MAX_CLAIM = 100
EXPORT_BYTES = 16 << 20  # of one page of an export, about
LONG_SECONDS = 600.0  # that an erasure or a rotation may take


class View(NamedTuple):
    """A suspect in full, and what the index knows of it."""

    row: Row
    suspect: Suspect


class Export(NamedTuple):
    """Some suspects in full, and where to go on: None at the end."""

    views: tuple[View, ...]
    after: str | None


class Desk:
    """What people do with suspects. Every method takes who asks first.

    required: reviewers who must agree; claim_seconds: for which a suspect is one reviewer's alone;
    via: where people come from, for the record; seconds: that the store may take.

    Raises ForbiddenError, InputError (ids, limits, filters), UnknownSuspectError, StoreError,
    AuditError, and OverloadedError where too many wait already.
    """

    def __init__(
        self,
        store: Store,
        audit: Audit = OFF,
        *,
        required: int = 1,
        claim_seconds: float = 300.0,
        via: Via = "rpc",
        seconds: float = 30.0,
    ) -> None:
        self.required = required
        self._store, self._claim_seconds = store, claim_seconds
        self._steps = Steps(audit, via, seconds)

    def close(self) -> None:
        """Take nothing on any more; the store is somebody else's to close."""
        self._steps.close()

    # ── looking ──────────────────────────────────────────────────────────────────────────────────

    async def rows(
        self,
        who: Identity,
        wanted: Filter = Filter(),  # noqa: B008 - frozen
        *,
        order: Order = "newest",
        after: str | None = None,
        limit: int = 50,
    ) -> Page:
        """A page of rows, without pictures."""

        def ask() -> Page:
            check_limit(limit, MAX_ROWS)
            scoped = self._scoped(who, wanted)
            return self._store.rows(scoped, order=order, after=after, limit=limit)

        return await self._steps.look(who, "ListSuspects", ask, filter=described(wanted))

    async def row(self, who: Identity, suspect_id: str) -> Row:
        """What the index knows of one, without its picture."""
        return await self._steps.look(
            who, "GetSuspect", lambda: self._row(who, suspect_id), suspects=[suspect_id]
        )

    async def view(self, who: Identity, suspect_id: str) -> View:
        """One suspect in full, picture and all."""

        def ask() -> View:
            return View(self._row(who, suspect_id), self._store.get(suspect_id))

        return await self._steps.look(
            who, "GetSuspect", ask, event="suspect.view", suspects=[suspect_id]
        )

    async def similar(self, who: Identity, suspect_id: str, limit: int = 20) -> list[Row]:
        """Those that look like it, most alike first, without pictures."""

        def ask() -> list[Row]:
            check_limit(limit, MAX_ROWS)
            self._row(who, suspect_id)
            return self._store.similar(suspect_id, limit, tenant=who.scope or None)

        return await self._steps.look(who, "GetSuspect", ask, suspects=[suspect_id], similar=limit)

    async def counts(
        self,
        who: Identity,
        wanted: Filter = Filter(),  # noqa: B008 - frozen
    ) -> Counts:
        """How many there are. Not recorded: the console asks every few seconds."""
        self._steps.permit(who, "CountSuspects")
        return await self._steps.run(lambda: self._store.counts(self._scoped(who, wanted)))

    async def export(
        self, who: Identity, wanted: Filter, *, after: str | None = None, limit: int = 100
    ) -> Export:
        """A page of suspects in full, oldest first; fewer than `limit` where they are large."""

        def ask() -> Export:
            check_limit(limit, MAX_ROWS)
            return self._export(self._scoped(who, wanted), after, limit)

        return await self._steps.look(
            who, "ExportSuspects", ask, event="suspect.export", filter=described(wanted)
        )

    # ── judging ──────────────────────────────────────────────────────────────────────────────────

    async def claim(
        self,
        who: Identity,
        wanted: Filter = Filter(),  # noqa: B008 - frozen
        *,
        limit: int = 1,
    ) -> list[Row]:
        """Open suspects for this reviewer alone for a while."""

        def ask() -> list[Row]:
            check_limit(limit, MAX_CLAIM)
            scoped = self._scoped(who, wanted)
            return self._store.claim(who.name, scoped, limit=limit, seconds=self._claim_seconds)

        return await self._steps.look(who, "ClaimSuspects", ask, filter=described(wanted))

    async def label(self, who: Identity, ids: Sequence[str], label: str) -> list[Row]:
        """Say what these are, in one step that `undo` takes back as one; the rows as they are."""
        known = check_label(label)
        unique = check_ids(ids)

        def change() -> list[Row]:
            self._all_known(who, unique)
            review = Review(who.name, known, time.time())
            return self._store.review(unique, review, required=self.required)

        return await self._steps.change(
            who, "LabelSuspects", change, event="suspect.label", suspects=unique, label=known
        )

    async def undo(self, who: Identity) -> list[Row]:
        """Take back this reviewer's last labelling; the rows it had changed, if any."""

        def change() -> list[Row]:
            return self._store.undo(who.name, required=self.required)

        return await self._steps.change(
            who,
            "UndoLabel",
            change,
            event="suspect.label",
            label="undo",
            told=lambda rows: {"suspects": [row.id for row in rows]},
        )

    async def feedback(self, who: Identity, suspect_id: str, label: str) -> None:
        """What the client who sent it says it is; shown to reviewers, and no review."""
        known = check_label(label)
        (suspect_id,) = check_ids([suspect_id])

        def change() -> None:
            client = self._store.pseudonym(who.name)
            if self._row(who, suspect_id).client != client:
                raise unknown()
            review = Review(client, known, time.time(), "client")
            self._store.review([suspect_id], review, required=self.required)

        try:
            await self._steps.change(
                who,
                "SubmitFeedback",
                change,
                event="suspect.label",
                suspects=[suspect_id],
                label=known,
            )
        except StoreError:  # where and why is not for clients
            raise StoreError("the store of suspects does not answer now") from None

    # ── keys ─────────────────────────────────────────────────────────────────────────────────────

    async def erase(self, who: Identity, wanted: Filter) -> int:
        """Destroy these for good; how many there were."""
        if wanted == Filter():
            raise InputError("say which suspects to erase: nobody erases all by accident")
        check_filter(wanted)

        def change() -> int:
            return self._store.erase(self._scoped(who, wanted))

        return await self._steps.change(
            who,
            "EraseSuspects",
            change,
            event="suspect.erase",
            filter=described(wanted),
            suspects=list(wanted.ids or ()),
            told=lambda count: {"erased": count},
            seconds=LONG_SECONDS,
        )

    async def rotate(self, who: Identity) -> int:
        """A new key for all keys, so that no backup opens what was erased; how many were wrapped.

        For whoever looks after every tenant's suspects only.
        """
        if who.scope:
            raise ForbiddenError("keys are rotated for all tenants together")
        return await self._steps.change(
            who,
            "RotateSuspectKeys",
            self._store.rotate,
            event="suspect.rotate",
            told=lambda count: {"wrapped": count},
            seconds=LONG_SECONDS,
        )

    async def pseudonym(self, name: str) -> str:
        """The keyed hash that stands for a client's name in `Filter.client`."""
        return await self._steps.run(lambda: self._store.pseudonym(name))

    # ── in the store's thread ────────────────────────────────────────────────────────────────────

    def _scoped(self, who: Identity, wanted: Filter) -> Filter:
        """The filter, for the tenant of who asks alone."""
        check_filter(wanted)
        if not who.scope:
            return wanted
        if wanted.tenant not in (None, who.scope):
            raise ForbiddenError("only your own tenant's suspects are yours to see")
        return dataclasses.replace(wanted, tenant=who.scope)

    def _row(self, who: Identity, suspect_id: str) -> Row:
        check_ids([suspect_id])
        try:
            row = self._store.row(suspect_id)
        except UnknownSuspectError:
            raise unknown() from None  # said as of another tenant's, which must not be told apart
        if who.scope and row.tenant != who.scope:
            raise unknown()
        return row

    def _all_known(self, who: Identity, ids: Sequence[str]) -> None:
        """Raise UnknownSuspectError where one of these is not there, or another tenant's."""
        for at in range(0, len(ids), MAX_ROWS):
            part = ids[at : at + MAX_ROWS]
            found = self._store.rows(Filter(ids=part, tenant=who.scope or None), limit=len(part))
            if missing := set(part) - {row.id for row in found.rows}:
                raise unknown(len(missing))

    def _export(self, wanted: Filter, after: str | None, limit: int) -> Export:
        page = self._store.rows(wanted, order="oldest", after=after, limit=limit)
        total, fits = 0, 0
        for row in page.rows:
            total += row.bytes
            if fits and total > EXPORT_BYTES:
                break
            fits += 1
        if fits < len(page.rows):
            page = self._store.rows(wanted, order="oldest", after=after, limit=fits)
        views = []
        for row in page.rows:
            try:
                views.append(View(row, self._store.get(row.id)))
            except UnknownSuspectError:  # erased meanwhile
                continue
        return Export(tuple(views), page.after)
