"""Micro-batches: whatever waits is run together, and an idle gateway never waits.

One run at a time, in a worker thread, so the event loop stays free and the arrays of several
callers share one session run. Callers are strangers to each other: one who leaves is skipped, one
whose images break the run takes no neighbour down.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from guard.errors import OverloadedError

Array = NDArray[Any]
T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Job(Generic[T]):
    """One caller's images (n, ...) and the promise of their result."""

    images: Array
    answer: "asyncio.Future[T]"
    since: float = field(default_factory=time.perf_counter)


class Batcher(Generic[T]):
    """Runs `run(images)` on what several callers hand in, and gives each its own part back.

    `run` gets images (n, ...) and returns something for all of them; `part(result, start, stop)`
    cuts one caller's rows out. At most `max_batch` images go into one run (a caller's own images
    are never split over two runs) and at most `max_queue` wait. `waited(seconds)` hears how long
    each caller waited for its run to begin, `depth(images)` how many wait.
    """

    def __init__(
        self,
        run: Callable[[Array], T],
        part: Callable[[T, int, int], T],
        *,
        max_batch: int,
        max_queue: int,
        name: str = "batcher",
        waited: Callable[[float], None] = lambda _seconds: None,
        depth: Callable[[float], None] = lambda _images: None,
    ) -> None:
        self._run = run
        self._part = part
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._waited = waited
        self._depth = depth
        self._queue: deque[_Job[T]] = deque()
        self._queued = 0
        self._running = False
        self._began: float | None = None
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=name)

    @property
    def queued(self) -> int:
        """Images that wait for a run."""
        return self._queued

    @property
    def busy_for(self) -> float:
        """Seconds since the run under way began, 0 where there is none."""
        return 0.0 if self._began is None else time.perf_counter() - self._began

    def submit(self, images: Array) -> "asyncio.Future[T]":
        """Queue images (n, ...) for the next run; cancel the future to leave.

        Raises `OverloadedError` when the queue is full or the batcher is shutting down. A request
        larger than the whole queue is taken when nothing else waits.
        """
        if self._closed:
            raise OverloadedError("the gateway is shutting down")
        if self._queue and self._queued + len(images) > self._max_queue:
            raise OverloadedError("too many images are waiting")
        loop = asyncio.get_running_loop()
        job: _Job[T] = _Job(images, loop.create_future())
        self._queue.append(job)
        self._queued += len(images)
        self._depth(self._queued)
        if not self._running:
            self._running = True
            self._idle.clear()
            # Not at once: whoever arrives in the same turn of the loop comes along.
            loop.call_soon(self._next)
        return job.answer

    async def close(self) -> None:
        """Finish what is queued, take nothing new."""
        self._closed = True
        await self._idle.wait()
        self._worker.shutdown(wait=False)

    def _next(self) -> None:
        """Start the next run, or come to rest."""
        jobs = self._take()
        self._depth(self._queued)
        if not jobs:
            self._running = False
            self._idle.set()
            return
        now = self._began = time.perf_counter()
        for job in jobs:
            self._waited(now - job.since)
        done = asyncio.get_running_loop().run_in_executor(self._worker, self._outcomes, jobs)
        done.add_done_callback(lambda future: self._deliver(jobs, future))

    def _take(self) -> list[_Job[T]]:
        """The jobs of the next run: first come first served, those whose caller left dropped."""
        jobs: list[_Job[T]] = []
        size = 0
        while self._queue:
            job = self._queue[0]
            if not job.answer.done():
                if jobs and not _fits(jobs[0].images, job.images, self._max_batch - size):
                    break
                jobs.append(job)
                size += len(job.images)
            self._queue.popleft()
            self._queued -= len(job.images)
        return jobs

    def _outcomes(self, jobs: list[_Job[T]]) -> list[T | BaseException]:
        """In the worker: one result or error per job; a run that fails is repeated one by one."""
        try:
            if len(jobs) == 1:
                return [self._run(jobs[0].images)]
            result = self._run(np.concatenate([job.images for job in jobs]))
            stops = np.cumsum([len(job.images) for job in jobs]).tolist()
            starts = [0, *stops[:-1]]
            return [self._part(result, *span) for span in zip(starts, stops, strict=True)]
        except Exception as error:
            if len(jobs) == 1:
                return [error]
            log.warning("a batch of %d requests failed, trying them singly: %r", len(jobs), error)
        return [self._outcomes([job])[0] for job in jobs]

    def _deliver(
        self, jobs: list[_Job[T]], done: "asyncio.Future[list[T | BaseException]]"
    ) -> None:
        """Back on the loop: hand every caller its own, then go on."""
        self._began = None
        error = done.exception()
        outcomes = [error] * len(jobs) if error else done.result()
        for job, outcome in zip(jobs, outcomes, strict=True):
            if job.answer.done():
                continue
            if isinstance(outcome, BaseException):
                job.answer.set_exception(outcome)
            else:
                job.answer.set_result(outcome)
        self._next()


def _fits(first: Array, images: Array, room: int) -> bool:
    """Whether these images can share a run with the first ones."""
    alike = first.shape[1:] == images.shape[1:] and first.dtype == images.dtype
    return alike and len(images) <= room
