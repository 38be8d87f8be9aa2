"""A store that may not be there yet: it is opened when it is first needed, and tried again.

A gateway starts without its store of suspects, as it goes on without it.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from guard import metrics
from guard.errors import StoreError
from guard.suspects.record import Counts, Filter, Floats, Page, Review, Row, Suspect
from guard.suspects.store import Order, Store

AGAIN_SECONDS = 1.0
log = logging.getLogger(__name__)


class LateStore:
    """The store that `open_store` gives; before it does, every method raises its StoreError."""

    def __init__(self, open_store: Callable[[], Store]) -> None:
        self._open = open_store
        self._store: Store | None = None
        self._lock = threading.Lock()
        self._error, self._again = StoreError("the store of suspects is not open yet"), 0.0
        self._closed = False

    def opened(self) -> Store:
        """The store, opened where it is not; StoreError, without asking, a moment after another."""
        if self._store is not None:
            return self._store
        if not self._lock.acquire(blocking=False):
            raise StoreError("the store of suspects is being opened")
        try:
            return self._try()
        finally:
            self._lock.release()

    @property
    def ready(self) -> bool:
        """Whether it is open: then ids and pseudonyms can be had at once."""
        return self._store is not None

    def _try(self) -> Store:
        if self._closed or time.monotonic() < self._again:
            raise self._error
        try:
            self._store = self._store or self._open()
        except StoreError as error:
            metrics.SUSPECTS_FAILURES.labels("open").inc()
            if str(error) != str(self._error):
                log.error("no suspects can be kept: %s", error)
            self._error, self._again = error, time.monotonic() + AGAIN_SECONDS
            raise
        return self._store

    def pseudonym(self, name: str) -> str:
        """See `Store`."""
        return self.opened().pseudonym(name)

    def suspect_id(self, image: Floats, *, client: str, tenant: str, model: str, pack: str) -> str:
        """See `Store`."""
        store = self.opened()
        return store.suspect_id(image, client=client, tenant=tenant, model=model, pack=pack)

    def near(self, image: Floats) -> tuple[int, ...]:
        """See `Store`."""
        return self.opened().near(image)

    def put(self, suspects: Sequence[Suspect]) -> None:
        """See `Store`."""
        self.opened().put(suspects)

    def get(self, suspect_id: str) -> Suspect:
        """See `Store`."""
        return self.opened().get(suspect_id)

    def row(self, suspect_id: str) -> Row:
        """See `Store`."""
        return self.opened().row(suspect_id)

    def rows(
        self,
        wanted: Filter = Filter(),  # noqa: B008 - frozen
        *,
        order: Order = "newest",
        after: str | None = None,
        limit: int = 50,
    ) -> Page:
        """See `Store`."""
        return self.opened().rows(wanted, order=order, after=after, limit=limit)

    def counts(self, wanted: Filter = Filter()) -> Counts:  # noqa: B008 - frozen
        """See `Store`."""
        return self.opened().counts(wanted)

    def similar(self, suspect_id: str, limit: int = 20, *, tenant: str | None = None) -> list[Row]:
        """See `Store`."""
        return self.opened().similar(suspect_id, limit, tenant=tenant)

    def claim(
        self, reviewer: str, wanted: Filter, *, limit: int = 1, seconds: float = 300.0
    ) -> list[Row]:
        """See `Store`."""
        return self.opened().claim(reviewer, wanted, limit=limit, seconds=seconds)

    def review(self, ids: Sequence[str], review: Review, *, required: int = 1) -> list[Row]:
        """See `Store`."""
        return self.opened().review(ids, review, required=required)

    def undo(self, reviewer: str, *, required: int = 1) -> list[Row]:
        """See `Store`."""
        return self.opened().undo(reviewer, required=required)

    def erase(self, wanted: Filter) -> int:
        """See `Store`."""
        return self.opened().erase(wanted)

    def rotate(self) -> int:
        """See `Store`."""
        return self.opened().rotate()

    def erased_since(self) -> float | None:
        """See `Store`."""
        return self.opened().erased_since()

    def upkeep(self, *, keep_seconds: float | None, quota_bytes: int | None) -> int:
        """See `Store`."""
        return self.opened().upkeep(keep_seconds=keep_seconds, quota_bytes=quota_bytes)

    def close(self) -> None:
        """See `Store`."""
        with self._lock:
            self._closed = True
            if self._store is not None:
                self._store.close()
