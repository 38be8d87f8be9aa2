"""Capture: from the request path to the store, through a bounded queue to one writer thread.

`offer` returns at once and cannot fail a request. What waits is written in batches, a moment after
it came, so that replies leave first and neighbours share one commit. A store that fails is asked
again until it answers; meanwhile the queue fills, and what finds it full is dropped and counted.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from guard import metrics
from guard.errors import StoreError
from guard.metrics import Dropped
from guard.suspects.health import Health
from guard.suspects.record import Suspect
from guard.suspects.store import Store

LINGER_SECONDS = 0.2  # a commit costs a millisecond of CPU, shared by all that came meanwhile
MAX_BATCH = 256
FIRST_RETRY, LAST_RETRY = 0.05, 1.0  # seconds
OVERHEAD = 2048  # bytes of a suspect beside its arrays, about
log = logging.getLogger(__name__)


class Capture:
    """The queue, and the thread that empties it into `store`.

    max_queue, max_bytes: what may wait at once, images and memory. drain: seconds that `close`
    spends on what still waits. health: is told how the store does.
    """

    def __init__(
        self,
        store: Store,
        *,
        max_queue: int,
        max_bytes: int,
        drain: float = 5.0,
        health: Health | None = None,
    ) -> None:
        self._store, self._drain = store, drain
        self._max_queue, self._max_bytes = max_queue, max_bytes
        self._wake = threading.Condition()
        self._queue: deque[Suspect] = deque()
        self._count = self._bytes = 0  # waiting or being written
        self._closing = threading.Event()
        self._give_up = float("inf")
        self._health = health or Health()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="suspects", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Images that are not kept yet."""
        return self._count

    def offer(self, suspect: Suspect) -> bool:
        """Queue an image, with `near` left empty; False where it is dropped, and counted."""
        size = _size(suspect)
        with self._wake:
            if self._closing.is_set():
                return _dropped("closing")
            if self._count >= self._max_queue or self._bytes + size > self._max_bytes:
                return _dropped("queue")
            self._queue.append(suspect)
            self._count, self._bytes = self._count + 1, self._bytes + size
            if len(self._queue) == 1:
                self._wake.notify()
        metrics.SUSPECTS_QUEUED.set(self._count)
        return True

    def close(self) -> None:
        """Keep what waits, for `drain` seconds at most; the rest is dropped and counted."""
        with self._wake:
            self._give_up = time.monotonic() + self._drain
            self._closing.set()
            self._wake.notify()
        self._thread.join(2 * self._drain + 1)
        if self._thread.is_alive():
            log.error("%d suspects are lost: their store does not answer", self._count)
            _dropped("closing", self._count)

    # ── on the writer's thread ───────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        while batch := self._next():
            try:
                self._keep(self._completed(batch))
            except Exception as error:  # whatever it is, the next batch is tried
                _lost(len(batch), error)
            with self._wake:
                self._count -= len(batch)
                self._bytes -= sum(map(_size, batch))
            metrics.SUSPECTS_QUEUED.set(self._count)

    def _next(self) -> list[Suspect]:
        """The next batch; empty when there is none, and none will come."""
        with self._wake:
            while not self._queue and not self._closing.is_set():
                self._wake.wait()
        self._closing.wait(LINGER_SECONDS)
        with self._wake:
            return [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BATCH))]

    def _completed(self, batch: Sequence[Suspect]) -> list[Suspect]:
        """With the codes by which pictures that look alike are found."""
        return [replace(suspect, near=self._store.near(suspect.image)) for suspect in batch]

    def _keep(self, batch: Sequence[Suspect]) -> None:
        """Until the store has them, or refuses them for what they are, or time is up."""
        delay = FIRST_RETRY
        while True:
            try:
                with metrics.SUSPECTS_WRITE_SECONDS.time():
                    self._store.put(batch)
            except StoreError as error:
                self._failed(error)
            except Exception as error:
                return self._singly(batch, error)
            else:
                return self._kept(len(batch))
            if time.monotonic() >= self._give_up:
                log.error("%d suspects are lost: their store fails", len(batch))
                _dropped("closing", len(batch))
                return None
            _pause(self._closing, delay)
            delay = min(2 * delay, LAST_RETRY)

    def _singly(self, batch: Sequence[Suspect], error: Exception) -> None:
        """One bad suspect takes no neighbour down."""
        if len(batch) == 1:
            return _lost(1, error)
        for suspect in batch:
            self._keep([suspect])
        return None

    def _kept(self, count: int) -> None:
        metrics.SUSPECTS_KEPT.inc(count)
        self._health.well("capture")
        if self._failing:
            log.warning("suspects are kept again")
        self._failing = False

    def _failed(self, error: StoreError) -> None:
        metrics.SUSPECTS_FAILURES.labels("put").inc()
        self._health.failed("capture")
        if not self._failing:
            log.error("suspects cannot be kept, will go on trying: %s", error)
        self._failing = True


def _size(suspect: Suspect) -> int:
    """The memory that a waiting suspect takes, about."""
    return suspect.image.nbytes + suspect.evidence.nbytes + suspect.probabilities.nbytes + OVERHEAD


def _pause(closing: threading.Event, seconds: float) -> None:
    """Wait; a little even when closing, so that a failing store is not hammered."""
    if closing.wait(seconds):
        time.sleep(FIRST_RETRY)


def _dropped(reason: Dropped, count: int = 1) -> bool:
    metrics.SUSPECTS_DROPPED.labels(reason).inc(count)
    return False


def _lost(count: int, error: Exception) -> None:
    """Only the kind of error is said: its text might quote what it met."""
    log.error("%d suspects are lost: %s", count, type(error).__name__)
    _dropped("error", count)
