"""What a store of suspects needs from time to time: retention by age and quota, the rotation that
is due after an erasure, and its numbers for whoever watches."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator

from guard import metrics
from guard.errors import StoreError
from guard.metrics import StoreTask
from guard.suspects.health import Health
from guard.suspects.store import Store

BELOW_QUOTA = 0.95  # of the quota is left, so that not every new suspect costs a rotation
AGE_SECONDS = 3600.0  # between looks for suspects that are too old, at most
RETRY_SECONDS = 1.0  # between looks while something fails
log = logging.getLogger(__name__)


class Keeper:
    """A thread that looks after `store`, `every` so many seconds.

    keep_seconds: age at which a suspect is erased; quota_bytes: size beyond which the oldest are;
    rotate: whether an erasure is followed by a new key. health: is told how the store does.
    """

    def __init__(
        self,
        store: Store,
        *,
        keep_seconds: float,
        quota_bytes: int,
        rotate: bool,
        every: float = 20.0,
        health: Health | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._clock, self._every = store, clock, every
        self._keep_seconds, self._quota, self._rotates = keep_seconds, quota_bytes, rotate
        self._age_at = clock()
        self._health = health or Health()
        self._failing: set[StoreTask] = set()
        metrics.SUSPECTS_QUOTA.set(quota_bytes)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="suspects-upkeep", daemon=True)

    def start(self) -> None:
        """Begin, with a first look at once."""
        self._thread.start()

    def close(self) -> None:
        """Stop after what is being done."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(self._every)

    def once(self) -> None:
        """One look; what fails is counted, and does not keep the rest from being done."""
        with self._attempt("count"):
            size = self._measure()
            with self._attempt("retention"):
                self._retain(size)
        with self._attempt("rotation"):
            self._rotate()

    def _run(self) -> None:
        while True:
            self.once()
            if self._stop.wait(min(self._every, RETRY_SECONDS) if self._failing else self._every):
                return

    def _measure(self) -> int:
        """Bytes in the store, told to whoever watches with everything else."""
        counts = self._store.counts()
        for state, count in counts.by_state.items():
            metrics.SUSPECTS_STORED.labels(state).set(count)
        metrics.SUSPECTS_BYTES.set(counts.bytes)
        oldest = self._store.rows(order="oldest", limit=1).rows
        metrics.SUSPECTS_OLDEST.set(oldest[0].taken if oldest else 0)
        return counts.bytes

    def _retain(self, size: int) -> None:
        """Erase what is too old, now and then; what is too much, when it is."""
        aged, over = self._clock() >= self._age_at, size > self._quota
        if not (aged or over):
            return
        erased = self._store.upkeep(
            keep_seconds=self._keep_seconds,
            quota_bytes=int(BELOW_QUOTA * self._quota) if over else None,
        )
        self._age_at = self._clock() + min(AGE_SECONDS, self._keep_seconds / 24)
        metrics.SUSPECTS_ERASED.inc(erased)
        if erased:
            log.info("%d suspects erased: too old, or beyond the quota", erased)

    def _rotate(self) -> None:
        due = self._store.erased_since()
        metrics.SUSPECTS_ROTATION_DUE.set(due or 0)
        if due is None or not self._rotates:
            return
        count = self._store.rotate()
        metrics.SUSPECTS_ROTATED.inc()
        metrics.SUSPECTS_ROTATION_DUE.set(self._store.erased_since() or 0)
        log.info("a new key for %d suspects, after an erasure", count)

    @contextlib.contextmanager
    def _attempt(self, task: StoreTask) -> Iterator[None]:
        """Count a failure, and say it once until the task works again."""
        try:
            yield
        except Exception as error:
            metrics.SUSPECTS_FAILURES.labels(task).inc()
            self._health.failed(task)
            if task not in self._failing:
                told = error if isinstance(error, StoreError) else type(error).__name__
                log.error("the %s of suspects fails, will be tried again: %s", task, told)
            self._failing.add(task)
        else:
            self._failing.discard(task)
            self._health.well(task)
