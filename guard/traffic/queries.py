"""Sequences of queries that nearly repeat each other: what black-box attacks cannot do without.

A query that nearly repeats one of the last while belongs to its sequence, whoever sent either: many
accounts are one attacker. The same picture again, bit for bit, is a client that tries again, and
counts for nothing. A sequence of `alarm` different pictures is flagged, and all that comes after.

Known limit: frames of a video nearly repeat each other too; see `deploy/docs/traffic.md`.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guard.traffic.features import Features, Seen
from guard.traffic.memory import Memory, Reach

Floats = NDArray[np.float32]
SEQUENCES = 10_000  # of two queries or more that are remembered


@dataclass(slots=True)
class Sequence:
    """Queries that nearly repeat each other."""

    length: int  # different pictures
    label: int  # what was answered to its first query; -1: not known


@dataclass(frozen=True, slots=True)
class Sighting:
    """What is known of one query: the sequence it belongs to, and whether that is an attack."""

    query: int  # its number, for `answered`; -1: the same picture was there before
    sequence: int
    length: int
    flagged: bool
    label: int  # of the sequence's first query, -1 where it is not known


class QueryWatch:
    """The queries for one model, pictures of `shape` (C, H, W).

    capacity and seconds: how many queries are remembered, and for how long. alarm: different
    pictures in a sequence from which on it is flagged.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        secret: bytes,
        reach: Reach,
        capacity: int = 100_000,
        seconds: float = 3600.0,
        alarm: int = 3,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.alarm, self._clock = alarm, clock
        self._features = Features(shape, secret)
        self.memory = Memory(self._features.dimensions, reach, capacity=capacity, seconds=seconds)
        self._lock = threading.Lock()
        self._next = 0
        self._sequences: OrderedDict[int, Sequence] = OrderedDict()

    def look(self, images: Floats) -> list[Sighting]:
        """Take note of queries (N, C, H, W) in [0, 1], in their order, and say what they are."""
        if not len(images):
            return []
        seen = self._features.of(images)
        with self._lock:
            now = self._clock()
            self.memory.forget(now)
            return [self._look(seen, row, now) for row in range(len(images))]

    def answered(self, sighting: Sighting, label: int) -> None:
        """The class that a query was answered with."""
        if sighting.query >= 0:
            self.memory.answered(sighting.query, label)

    def _look(self, seen: Seen, row: int, now: float) -> Sighting:
        places, again = self.memory.near(seen, row)
        number, sequence = self._joined(places, again)
        query = -1 if again else self.memory.add(seen, row, number, now)
        if sequence is None:
            return Sighting(query, number, 1, False, -1)
        flagged = sequence.length >= self.alarm
        return Sighting(query, number, sequence.length, flagged, sequence.label)

    def _joined(self, places: NDArray[np.int64], again: bool) -> tuple[int, Sequence | None]:
        """The sequence of a query that nearly repeats those of these places; None for a first."""
        if not len(places):
            self._next += 1
            return self._next, None
        numbers = self.memory.sequence[places]
        at = next((at for at, n in enumerate(numbers.tolist()) if n in self._sequences), 0)
        number = int(numbers[at])
        sequence = self._sequences.get(number)
        if sequence is None:
            if again:
                return number, None
            sequence = self._sequences[number] = Sequence(1, int(self.memory.label[places[at]]))
            if len(self._sequences) > SEQUENCES:
                self._sequences.popitem(last=False)
        self._sequences.move_to_end(number)
        sequence.length += not again
        return number, sequence
