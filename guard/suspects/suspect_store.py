"""The store: an index, a place for sealed records, and a key ring, put together.

Keeping: seal, make the records durable, commit the index, and only then say so. Erasing: delete
the keys with their rows, then the records. What a crash leaves in between is a record that no
index knows: it opens nothing, and is swept.
"""

import base64
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from guard.errors import StoreError, UnknownSuspectError
from guard.suspects import crypt, packing, queries
from guard.suspects.crypt import KeyRing
from guard.suspects.index import Index, Sealed
from guard.suspects.keys import Keys
from guard.suspects.near import near_codes
from guard.suspects.parts import Blobs, Database
from guard.suspects.queries import Where
from guard.suspects.record import Counts, Filter, Floats, Page, Review, Row, Suspect
from guard.suspects.reviews import Reviews
from guard.suspects.sealing import agreeing, sealed
from guard.suspects.store import Order

ATTEMPTS = 32  # at what another process changes meanwhile
BATCH = 500  # rows in one transaction of an erasure or a rotation
ID_BYTES = 20
SWEEP_SECONDS = 3600.0
EVERYTHING = Filter()
log = logging.getLogger(__name__)
T = TypeVar("T")


class SuspectStore:
    """See `Store`. Raises StoreError where the index was written with other keys."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        keys: Keys,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._index, self._reviews = Index(database), Reviews(database)
        self._blobs, self._keys, self._clock = blobs, keys, clock
        self._rotating = threading.Lock()
        self._untidy = False  # something failed that may have left records over
        self._swept = 0.0
        self._ring = keys.make() if self._index.prepare() else keys.load()
        self._own()
        self.sweep()

    # ── hashes ───────────────────────────────────────────────────────────────────────────────────

    def pseudonym(self, name: str) -> str:
        """See `Store`."""
        return _text(self._ring.hash("client", name.encode()))

    def suspect_id(self, image: Floats, *, client: str, tenant: str, model: str, pack: str) -> str:
        """See `Store`."""
        shape = ",".join(map(str, image.shape))
        texts = (one.encode() for one in (client, tenant, model, pack, shape))
        pixels = np.ascontiguousarray(image, "<f4").tobytes()
        return _text(self._ring.hash("id", *texts, pixels))

    def near(self, image: Floats) -> tuple[int, ...]:
        """See `Store`."""
        return near_codes(self._ring, image)

    # ── records ──────────────────────────────────────────────────────────────────────────────────

    def put(self, suspects: Sequence[Suspect]) -> None:
        """See `Store`."""
        if not suspects:
            return
        new = {one.id for one in suspects} - self._index.known([one.id for one in suspects])
        for _ in range(ATTEMPTS):
            with self._blobs.writing():
                missing = self._put(suspects, new)
            if missing is None:
                return
            new |= missing
        raise StoreError("suspects could not be kept: others change the same ones all the time")

    def get(self, suspect_id: str) -> Suspect:
        """See `Store`."""
        for _ in range(ATTEMPTS):
            row, sealed = self._index.sealed(suspect_id)
            key = self._unwrapped(row, sealed)
            raw = self._blobs.read(sealed.blob) if key else None
            if key and raw is not None:
                plain = crypt.unseal(raw, key, suspect_id=row.id, tenant=row.tenant)
                return agreeing(packing.unpack(plain, row.id), row)
            # Erased, or wrapped anew, since the index was asked: ask again.
            if self._index.sealed(suspect_id)[1] == sealed and key:
                raise StoreError(f"suspect {suspect_id}: its sealed record is missing")
        raise StoreError(
            f"suspect {suspect_id}: the key-encryption key {sealed.kek} is not in the ring:"
            " it was destroyed, or the ring is an old one"
        )

    def row(self, suspect_id: str) -> Row:
        """See `Store`."""
        return self._index.row(suspect_id)

    def rows(
        self,
        wanted: Filter = EVERYTHING,
        *,
        order: Order = "newest",
        after: str | None = None,
        limit: int = 50,
    ) -> Page:
        """See `Store`."""
        return self._index.rows(wanted, order, after, min(max(1, limit), queries.MAX_IDS))

    def counts(self, wanted: Filter = EVERYTHING) -> Counts:
        """See `Store`."""
        return self._index.counts(wanted)

    def similar(self, suspect_id: str, limit: int = 20, *, tenant: str | None = None) -> list[Row]:
        """See `Store`."""
        return self._index.similar(suspect_id, limit, tenant)

    # ── review ───────────────────────────────────────────────────────────────────────────────────

    def claim(
        self, reviewer: str, wanted: Filter, *, limit: int = 1, seconds: float = 300.0
    ) -> list[Row]:
        """See `Store`."""
        now = self._clock()
        return self._reviews.claim(reviewer, wanted, limit=limit, now=now, until=now + seconds)

    def review(self, ids: Sequence[str], review: Review, *, required: int = 1) -> list[Row]:
        """See `Store`."""
        return self._reviews.review(ids, review, required)

    def undo(self, reviewer: str, *, required: int = 1) -> list[Row]:
        """See `Store`."""
        return self._reviews.undo(reviewer, required)

    # ── erasure ──────────────────────────────────────────────────────────────────────────────────

    def erase(self, wanted: Filter) -> int:
        """See `Store`."""
        if wanted == EVERYTHING:
            raise ValueError("a filter is needed: nobody erases all by accident")
        return self._erase(self._index.where(wanted))

    def upkeep(self, *, keep_seconds: float | None, quota_bytes: int | None) -> int:
        """See `Store`; what a failure left over is swept, too."""
        erased = 0
        if keep_seconds is not None:
            erased += self._erase(Where("taken < ?", (self._clock() - keep_seconds,)))
        if quota_bytes is not None:
            for condition in (Where("label IS NULL", ()), Where("label IS NOT NULL", ())):
                excess = self._index.counts(EVERYTHING).bytes - quota_bytes
                erased += self._erase(condition, excess)
        if self._untidy or self._clock() >= self._swept + SWEEP_SECONDS:
            self.sweep()
        return erased

    def sweep(self) -> int:
        """Remove records that no index knows; how many."""
        self._swept, self._untidy = self._clock(), False
        # What a failed commit left in the index's log must not come back after a crash.
        self._index.mark("swept", repr(self._swept))
        count = 0
        with self._blobs.leftovers() as names:
            for some in _batches(names, BATCH):
                unknown = sorted(set(some) - self._index.blobs(some))
                if unknown and not count:
                    self._index.check()  # what a damaged index has forgotten is not left over
                self._blobs.delete(unknown)
                count += len(unknown)
        if count:
            log.info("%d left-over records of suspects were swept", count)
        return count

    def erased_since(self) -> float | None:
        """See `Store`."""
        found = [self._index.marked(name) for name in ("rotating", "erased")]
        return min((float(one) for one in found if one is not None), default=None)

    def rotate(self) -> int:
        """See `Store`."""
        with self._rotating, self._keys.rotating():
            ring, fresh = self._newer()
            count = self._rewrap(ring)
            if not fresh and not count:
                raise StoreError(
                    f"nothing to rotate: add a key with a number above {ring.current} first, where"
                    " the keys of suspects are kept"
                )
            self._ring = self._keys.forget()
            if fresh:
                self._index.mark("rotating", None)
            self._index.scrub()
        return count

    def _newer(self) -> tuple[KeyRing, bool]:
        """The ring with the key to rotate to, in use from now on; whether it never was before.

        Only a key that nothing was ever kept with makes what was erased unreadable: one that an
        interrupted rotation left in the ring may have been used since.
        """
        for _ in range(ATTEMPTS):
            ring = self._keys.add(self._index.fence())
            if self._index.use(ring.current, rotating=True):
                self._ring = ring
                return ring, True
            if ring.current <= self._index.fence():
                return ring, False
        raise StoreError("the keys of suspects are rotated by others all the time")

    def verify(self) -> Iterator[str]:
        """What is wrong with each record that cannot be opened."""
        after: str | None = None
        while True:
            page = self.rows(order="oldest", after=after, limit=BATCH)
            for row in page.rows:
                try:
                    self.get(row.id)
                except UnknownSuspectError:
                    continue  # erased meanwhile
                except StoreError as error:
                    yield str(error)
            if (after := page.after) is None:
                return

    def backup(self, path: Path) -> None:
        """A copy of the index in a new file, while others go on; the records are files as they are.

        It opens nothing after the next rotation: make one after each.
        """
        self._index.backup(path)

    def close(self) -> None:
        """See `Store`."""
        self._index.close()
        self._blobs.close()

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    @property
    def _check(self) -> str:
        return self._ring.hash("check").hex()

    def _own(self) -> None:
        """Nothing is read or written with keys that are not this store's."""
        while True:
            check, fence = self._index.claim_store(self._check, self._ring.current)
            if check != self._check:
                raise StoreError("the index of suspects was made with other keys than these")
            wrong = self._apart(fence)
            if not wrong:
                return
            before = self._ring.keys
            self._reload()  # rotated between the reading of the keys and of the index?
            if self._ring.keys == before:
                raise StoreError(wrong)

    def _apart(self, fence: int) -> str:
        """Why these keys do not go with an index that is at key `fence`; empty: they do."""
        if self._ring.current < fence:
            return (
                f"the keys of suspects end at number {self._ring.current}, the index is at {fence}:"
                " this is an old copy of the keys"
            )
        if fence not in self._ring.keys:
            return (
                f"the index of suspects is from before the last rotation: its key {fence} was"
                " destroyed; restore a newer one"
            )
        return ""

    def _reload(self) -> None:
        """The ring anew: another process may have rotated it."""
        self._ring = self._keys.load()

    def _put(self, suspects: Sequence[Suspect], new: set[str]) -> set[str] | None:
        """None where all were kept; else those that must be sealed, too, on the next attempt."""
        ring = self._ring
        drafts = sealed(ring, suspects, new)
        entries = [(one, drafts.pop(one.id, None)) for one in suspects]
        blobs = [(draft.record.blob, draft.content) for _, draft in entries if draft]
        names = [name for name, _ in blobs]
        if blobs:
            self._blobs.write(blobs)
        try:
            added = self._index.add([(one, draft and draft.record) for one, draft in entries])
        except BaseException:
            self._untidy = True  # it is not known whether it was committed: the sweep finds out
            raise
        if added.stale or added.ahead or added.missing:
            self._discard(names)
            if added.ahead:
                self._index.use(ring.current)
            if added.stale:
                self._reload()
                self._own()
            return set(added.missing)
        self._discard(added.superfluous)
        return None

    def _discard(self, names: Sequence[str]) -> None:
        """Remove records that opens nothing any more; the sweep does what fails here."""
        if not names:
            return
        try:
            self._blobs.delete(names)
        except StoreError as error:
            self._untidy = True
            log.warning("left for the sweep: %s", error)

    def _unwrapped(self, row: Row, sealed: Sealed) -> bytes | None:
        """A record's key; None where the ring lacks what wrapped it."""
        if sealed.kek not in self._ring.keys:
            self._reload()
        try:
            return self._ring.unwrap(
                sealed.kek, sealed.wrapped, suspect_id=row.id, tenant=row.tenant
            )
        except KeyError:
            return None

    def _erase(self, wanted: Where, enough: int | None = None) -> int:
        """Erase these, the oldest first, until `enough` bytes are free; how many."""
        count, left = 0, enough
        while left is None or left > 0:
            names, freed = self._index.erase(wanted, limit=BATCH, at=self._clock(), enough=left)
            if not names:
                break
            self._discard(names)
            count += len(names)
            left = None if left is None else left - freed
        if count:
            self._index.scrub()
        return count

    def _rewrap(self, ring: KeyRing) -> int:
        """Wrap every key with the newest; how many. One that cannot be opened stays as it is."""
        count, after = 0, -1
        while found := self._index.wrapped_before(ring.current, after, BATCH):
            after = found[-1].number
            old, new = [], []
            for one in found:
                try:
                    key = ring.unwrap(one.kek, one.wrapped, suspect_id=one.id, tenant=one.tenant)
                except (KeyError, StoreError):
                    log.error("suspect %s cannot be opened: its key is damaged or gone", one.id)
                    continue
                old.append(one)
                new.append(ring.wrap(key, suspect_id=one.id, tenant=one.tenant))
            self._index.rewrap(old, new)
            count += len(old)
        return count


def _text(digest: bytes) -> str:
    """A keyed hash as 32 letters and digits."""
    return base64.b32encode(digest[:ID_BYTES]).decode().lower()


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    items = iter(items)
    while some := list(islice(items, size)):
        yield some
