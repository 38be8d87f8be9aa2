"""Whether there is room for a request now, and whether it can be answered in time.

What cannot is refused at once, before its work takes time from those that can. How long an answer
takes is learned from the answers themselves, by how many images were being worked on: that covers
decoding, the defence and the upstream alike. What was learned is soon forgotten, so that a time of
trouble is over when it is over.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import grpc

from guard.errors import OverloadedError
from guard.gateway.status import code_of

FORGET_SECONDS = 2.0
BASE_SECONDS = 60.0  # for which the lightest load seen is remembered
MARGIN = 1.1  # an average is what half of the answers exceed
WEIGHT = 0.2  # of the newest answer in what is expected
SHORTEST = 0.05  # seconds that somebody is sent away for
LONGEST = 10.0
# Errors that come when the work is done, or when it took too long.
TOOK_ITS_TIME = (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.DEADLINE_EXCEEDED)


class Seen(NamedTuple):
    """What answers took while about so much was in flight."""

    seconds: float  # on average
    load: float  # images in flight, on average
    at: float  # when the last one came


class Pace:
    """How long an answer takes, by the images in flight: one average for each power of two."""

    def __init__(self) -> None:
        self._seen: dict[int, Seen] = {}

    def note(self, load: int, seconds: float, now: float) -> None:
        """An answer took so long; `load` images were in flight when its request came."""
        step = load.bit_length()
        old = self._seen.get(step)
        if old is None or now - old.at > FORGET_SECONDS:
            self._seen[step] = Seen(seconds, load, now)
            return
        mean = old.seconds + WEIGHT * (seconds - old.seconds)
        self._seen[step] = Seen(mean, old.load + WEIGHT * (load - old.load), now)

    def expect(self, load: int, now: float) -> float:
        """The seconds an answer will take: a line through the nearest load seen and the lightest.

        The nearest one not above `load`, seen just now; 0 where there is none.
        """
        fresh = (self._fresh(step, now) for step in range(load.bit_length(), 0, -1))
        near = next(filter(None, fresh), None)
        if near is None:
            return 0.0
        light = min((s for s in self._seen.values() if now - s.at <= BASE_SECONDS), key=_load)
        slope = 0.0
        if light.load < near.load:
            slope = max(0.0, (near.seconds - light.seconds) / (near.load - light.load))
        return max(0.0, near.seconds + slope * (load - near.load))

    def _fresh(self, step: int, now: float) -> Seen | None:
        seen = self._seen.get(step)
        return seen if seen is not None and now - seen.at <= FORGET_SECONDS else None


def _load(seen: Seen) -> float:
    return seen.load


class Admission:
    """One model's: who comes in is counted until they leave."""

    def __init__(self, max_wait: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_wait, self._clock = max_wait, clock
        self._pace = Pace()
        self.images = 0  # in flight

    @contextmanager
    def admit(self, images: int, seconds: float) -> Iterator[None]:
        """Inside, a request of so many images is worked on, for at most so many seconds.

        Raises OverloadedError where its answer would take longer than that, or than `max_wait`. Who
        comes when nobody else is here is never refused: somebody has to find out.
        """
        began, load = self._clock(), self.images + images
        if self.images:
            self._refuse_late(MARGIN * self._pace.expect(load, began), seconds)
        self.images = load
        try:
            yield
        except BaseException as error:
            if code_of(error) in TOOK_ITS_TIME:
                self._note(load, began)
            raise
        else:
            self._note(load, began)
        finally:
            self.images -= images

    def _note(self, load: int, began: float) -> None:
        now = self._clock()
        self._pace.note(load, now - began, now)

    def _refuse_late(self, expected: float, seconds: float) -> None:
        if expected > seconds:
            message = f"an answer would take {expected:.2g} s, the deadline is in {seconds:.2g} s"
            raise OverloadedError(message, retry_after=away(expected - seconds))
        if expected > self._max_wait:
            message = "too many images are being worked on"
            raise OverloadedError(message, retry_after=away(expected - self._max_wait))


def away(seconds: float) -> float:
    """How long to send somebody away, spread so that not all come back together."""
    return min(max(seconds, SHORTEST), LONGEST) * random.uniform(0.75, 1.5)
