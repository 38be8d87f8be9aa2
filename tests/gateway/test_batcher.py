"""Micro-batching: who shares a run, and that nobody suffers from a neighbour."""

import asyncio
import threading

import numpy as np
import pytest
from numpy.typing import NDArray

from guard.errors import OverloadedError
from guard.gateway.batcher import Batcher

Floats = NDArray[np.float32]


class Runs:
    """A run that notes its batch sizes, holds while `gate` is closed and refuses NaN."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, images: Floats) -> Floats:
        """Twice the images."""
        self.sizes.append(len(images))
        assert self.gate.wait(10)
        if np.isnan(images).any():
            raise ValueError("poison")
        return images * 2


def batcher(run: Runs, *, max_batch: int = 8, max_queue: int = 64) -> Batcher[Floats]:
    """A batcher whose parts are plain slices."""
    return Batcher(
        run,
        lambda result, start, stop: result[start:stop],
        max_batch=max_batch,
        max_queue=max_queue,
    )


def images(*values: float) -> Floats:
    """One image of one number for each value."""
    return np.array(values, np.float32)[:, None]


async def started(run: Runs, count: int = 1) -> None:
    """Returns once the run has begun `count` times."""
    while len(run.sizes) < count:
        await asyncio.sleep(0.001)


async def test_a_lone_caller_is_served_at_once() -> None:
    """An idle gateway never waits for company: no copy, one run."""
    run = Runs()
    lone = images(1, 2)
    assert (await batcher(run).submit(lone)).tolist() == [[2], [4]]
    assert run.sizes == [2]


async def test_what_is_queued_shares_a_run_and_everyone_gets_their_own_rows() -> None:
    """Callers of different sizes get exactly their rows back, in any number of runs."""
    run = Runs()
    queue = batcher(run)
    answers = await asyncio.gather(
        *(queue.submit(images(*range(size * 10, size * 11))) for size in (1, 2, 3, 4, 5))
    )
    for size, answer in zip((1, 2, 3, 4, 5), answers, strict=True):
        assert answer[:, 0].tolist() == [2 * value for value in range(size * 10, size * 11)]
    assert run.sizes == [6, 4, 5]


async def test_a_caller_who_left_is_not_run_and_shifts_nobody() -> None:
    """A cancelled request in the queue costs nothing and moves no neighbour's rows."""
    run = Runs()
    run.gate.clear()
    queue = batcher(run)
    first = queue.submit(images(1))
    await started(run)
    second, third, fourth = (queue.submit(images(value)) for value in (2, 3, 4))
    third.cancel()
    run.gate.set()
    assert [float(x[0, 0]) for x in await asyncio.gather(first, second, fourth)] == [2, 4, 8]
    assert run.sizes == [1, 2]
    assert queue.queued == 0


async def test_a_caller_who_leaves_during_the_run_harms_nobody() -> None:
    """Completing a cancelled future must not break the batch, nor the batches after it."""
    run = Runs()
    queue = batcher(run)
    run.gate.clear()
    first, second = queue.submit(images(1)), queue.submit(images(2))
    await started(run)
    first.cancel()
    run.gate.set()
    assert (await second).tolist() == [[4]]
    assert (await queue.submit(images(5))).tolist() == [[10]]


async def test_an_expired_caller_leaves_like_a_cancelled_one() -> None:
    """A deadline that passes in the queue frees the place."""
    run = Runs()
    run.gate.clear()
    queue = batcher(run)
    first = queue.submit(images(1))
    await started(run)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await queue.submit(images(2))
    run.gate.set()
    await first
    await queue.close()
    assert run.sizes == [1]


async def test_one_poison_request_does_not_take_its_batch_down() -> None:
    """The batch fails, each request is tried alone, and only the poison gets the error."""
    run = Runs()
    queue = batcher(run)
    good, bad, late = (queue.submit(images(value)) for value in (1, float("nan"), 3))
    outcomes = await asyncio.gather(good, bad, late, return_exceptions=True)
    assert isinstance(outcomes[1], ValueError)
    assert [outcomes[0].tolist(), outcomes[2].tolist()] == [[[2]], [[6]]]  # type: ignore[union-attr]
    assert (await queue.submit(images(4))).tolist() == [[8]]


async def test_different_shapes_never_share_a_run() -> None:
    """Images of another size wait for the next run instead of breaking this one."""
    run = Runs()
    queue = batcher(run)
    wide = queue.submit(np.ones((2, 3), np.float32))
    tall = queue.submit(np.ones((2, 4), np.float32))
    assert ((await wide).shape, (await tall).shape) == ((2, 3), (2, 4))
    assert run.sizes == [2, 2]


async def test_a_full_queue_refuses_at_once_and_says_so() -> None:
    """The bound counts images, and a refused caller has cost nothing."""
    run = Runs()
    run.gate.clear()
    queue = batcher(run, max_queue=4)
    first = queue.submit(images(1))
    await started(run)
    waiting = queue.submit(images(1, 2, 3))
    with pytest.raises(OverloadedError) as caught:
        queue.submit(images(4, 5))
    assert caught.value.retry_after > 0
    run.gate.set()
    await asyncio.gather(first, waiting)
    assert run.sizes == [1, 3]


async def test_closing_finishes_what_is_queued_and_takes_nothing_new() -> None:
    """A drain loses no request."""
    run = Runs()
    queue = batcher(run)
    last = queue.submit(images(7))
    await queue.close()
    assert last.done()
    with pytest.raises(OverloadedError, match="shutting down"):
        queue.submit(images(8))


async def test_waiting_and_depth_are_reported() -> None:
    """The metrics hear of every caller's wait and of the queue's length."""
    waits: list[float] = []
    depths: list[float] = []
    run = Runs()
    queue: Batcher[Floats] = Batcher(
        run,
        lambda r, a, b: r[a:b],
        max_batch=4,
        max_queue=9,
        waited=waits.append,
        depth=depths.append,
    )
    await asyncio.gather(queue.submit(images(1)), queue.submit(images(2)))
    assert (len(waits), depths[:3]) == (2, [1, 2, 0])


async def test_how_long_a_run_has_been_under_way_is_known() -> None:
    """Nothing while idle, seconds while a run holds, nothing again afterwards."""
    run = Runs()
    run.gate.clear()
    mine = batcher(run)
    assert mine.busy_for == 0
    answer = mine.submit(images(1))
    await started(run)
    await asyncio.sleep(0.05)
    assert 0.04 < mine.busy_for < 5
    run.gate.set()
    await answer
    await asyncio.sleep(0)
    assert mine.busy_for == 0
