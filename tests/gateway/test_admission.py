"""Who is let in while others are worked on, and who is told to come back."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio
import pytest

from guard.config.limits import Limits
from guard.errors import InputError, OverloadedError
from guard.gateway import protocol, status
from guard.gateway.admission import FORGET_SECONDS, Admission, Pace, away
from guard.gateway.status import AdversarialInputError
from guard.testing import FakeUpstream, clean_images
from tests.gateway.setting import Settings, until
from tests.gateway.wire import infer_request


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now: float = 1000.0

    def __call__(self) -> float:
        """Its time."""
        return self.now


@dataclass
class Line:
    """One server that takes `each` seconds an image, and the requests that wait for it."""

    admission: Admission
    clock: Clock
    each: float = 0.01
    free: float = 0.0  # when it has done all it took on
    waiting: list[tuple[float, Callable[[], object]]] = field(default_factory=list)

    def arrive(self, images: int = 1, seconds: float = 1.0) -> bool:
        """Whether a request is let in; what is done by now leaves first."""
        self.leave()
        entry = self.admission.admit(images, seconds)
        try:
            entry.__enter__()
        except OverloadedError:
            return False
        self.free = max(self.free, self.clock.now) + images * self.each
        self.waiting.append((self.free, lambda: entry.__exit__(None, None, None)))
        return True

    def leave(self) -> None:
        """Answer, each at its time, what is done by now."""
        now = self.clock.now
        while self.waiting and self.waiting[0][0] <= now:
            self.clock.now, finish = self.waiting.pop(0)
            finish()
        self.clock.now = now


def line(max_wait: float = 10.0) -> Line:
    """A server with nothing to do."""
    clock = Clock()
    return Line(Admission(max_wait, clock=clock), clock)


def test_under_overload_all_that_are_let_in_are_answered_in_time() -> None:
    """Five times as much as can be done arrives: nearly all of the time goes into answers in time.

    A queue without a look at deadlines would be a minute long by then, and every answer late.
    """
    here = line()
    late, let_in = 0, 0
    for _ in range(15_000):  # 30 s at 500 a second; 100 a second can be done
        here.clock.now += 0.002
        if here.arrive(seconds=0.5):
            let_in += 1
            late += here.free > here.clock.now + 0.5 + 1e-9
    assert let_in >= 0.95 * 3000
    assert late <= 0.02 * let_in


def test_the_end_of_the_overload_is_the_end_of_refusals() -> None:
    """One deadline later everything is let in again."""
    here = line()
    for _ in range(5000):
        here.clock.now += 0.002
        here.arrive(seconds=0.5)
    here.clock.now += 0.5
    outcomes = []
    for _ in range(500):
        here.clock.now += 0.02
        outcomes.append(here.arrive(seconds=0.5))
    assert all(outcomes)


def test_whoever_cannot_be_answered_in_time_is_refused_at_once() -> None:
    """By its own deadline or by max_wait; the refusal says how long to stay away."""
    here = line(max_wait=0.2)
    for _ in range(8):
        assert here.arrive(seconds=10)
    here.clock.now += 0.08
    here.leave()
    for _ in range(7):
        assert here.arrive(seconds=10)
    with pytest.raises(OverloadedError, match="an answer would take") as caught:
        here.admission.admit(1, 0.01).__enter__()
    assert 0 < caught.value.retry_after < 1
    for _ in range(60):
        here.arrive(seconds=10)
        here.clock.now += 0.001
    with pytest.raises(OverloadedError, match="too many images"):
        here.admission.admit(1, 10).__enter__()
    assert here.free - here.clock.now < 0.4


def test_what_was_learned_in_bad_times_is_forgotten() -> None:
    """Who comes alone is always let in; what nobody has seen lately is believed possible."""
    here = line()
    here.each = 5.0
    assert here.arrive(seconds=10)
    assert here.arrive(seconds=10)
    here.clock.now += 10.0
    here.leave()
    here.each = 0.01
    assert here.arrive(seconds=1)
    assert not here.arrive(seconds=1)
    here.clock.now += FORGET_SECONDS + 0.01
    here.leave()
    assert here.arrive(seconds=1)
    assert here.arrive(seconds=1)


@pytest.mark.parametrize(
    ("error", "learned"),
    [
        (AdversarialInputError("x", id="1"), 0.5),
        (TimeoutError(), 0.5),
        (InputError("x"), 0.0),
        (asyncio.CancelledError(), 0.0),
    ],
)
def test_quick_failures_teach_nothing(error: BaseException, learned: float) -> None:
    """A blocked image took its time, a malformed one did not; whatever happens, nobody stays."""
    clock = Clock()
    admission = Admission(10.0, clock=clock)
    with pytest.raises(type(error)), admission.admit(1, 1.0):
        clock.now += 0.5
        raise error
    assert admission.images == 0
    assert admission._pace.expect(1, clock.now) == learned


def test_more_images_are_expected_to_take_longer() -> None:
    """As much longer as it took longer so far; a server that does many at once is no slower."""
    pace = Pace()
    assert pace.expect(10, 0.0) == 0.0
    pace.note(10, 1.0, 0.0)
    assert pace.expect(1000, 0.0) == 1.0
    assert pace.expect(1, 0.0) == 0.0
    pace.note(20, 1.5, 0.0)
    assert pace.expect(40, 0.0) == pytest.approx(2.5)
    pace.note(40, 1.5, FORGET_SECONDS + 1)
    assert pace.expect(60, FORGET_SECONDS + 1) == pytest.approx(1.5 + 20 * 0.5 / 30)
    assert pace.expect(20, FORGET_SECONDS + 1) == 0.0


def test_those_sent_away_do_not_all_come_back_together() -> None:
    """The same delay is told with a spread, and never as nothing or for ever."""
    told = {away(1.0) for _ in range(100)}
    assert len(told) > 90
    assert max(told) - min(told) > 0.3
    assert away(0.0) > 0.01
    assert away(1e9) < 60


async def test_no_room_is_said_before_the_body_is_read(tiny_pack: Path) -> None:
    """A caller that has only begun to send hears it, with the time to come back."""
    async with Settings() as running:
        here = await running.start(tiny_pack, FakeUpstream(delay=0.5), gateway={"max_in_flight": 1})
        first = asyncio.create_task(here.caller.infer(clean_images([0])))
        await until(lambda: len(here.upstream.requests) == 1)
        path = protocol.INFERENCE_METHODS["ModelInfer"].path
        call = here.caller.channel.stream_unary(path)()
        async with asyncio.timeout(0.4):
            assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        trailing = dict(await call.trailing_metadata())
        assert protocol.retry_after(trailing[protocol.STATUS_DETAILS])
        assert int(trailing[status.PUSHBACK]) > 0
        assert (await first).outputs["label"].tolist() == [0]


async def test_a_deadline_that_cannot_be_kept_is_refused_without_trying(tiny_pack: Path) -> None:
    """A slow upstream teaches how long it takes; then it is not asked for those without time."""
    async with Settings() as running:
        here = await running.start(
            tiny_pack, FakeUpstream(delay=0.3), gateway={"limits": Limits(max_wait=5.0)}
        )
        await asyncio.gather(*(here.caller.infer(clean_images([0])) for _ in range(3)))
        others = [asyncio.create_task(here.caller.infer(clean_images([0]))) for _ in range(2)]
        await until(lambda: len(here.upstream.requests) == 5)
        start = time.monotonic()
        refused = await here.caller.refused(clean_images([0]), timeout=0.15)
        assert refused[:2] == ("RESOURCE_EXHAUSTED", "OVERLOADED")
        assert time.monotonic() - start < 0.14
        assert len(here.upstream.requests) == 5
        await asyncio.gather(*others)
        with pytest.raises(grpc.aio.AioRpcError) as caught:  # alone: somebody has to find out
            request = infer_request(clean_images([0])).SerializeToString()
            await here.caller.send("ModelInfer", request, timeout=0.15)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert len(here.upstream.requests) == 6
