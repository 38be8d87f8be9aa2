"""The queries of the last while, and which of them a new one nearly repeats.

Flat memory: rings and one hash table, made once. An embedding is first compared by its P leading
numbers, which can only make distances smaller, so that none within reach is missed; the few that
remain are compared in full. Letters: N queries, Q places, D, P and S as in `features.py`.
"""

import threading
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from guard.traffic.features import HASHES, PROJECTED, Seen

Floats = NDArray[np.float32]
Whole = NDArray[np.int64]

CANDIDATES = 64  # nearest ones compared in full
AGREE = 8  # of S hashes


class Reach(NamedTuple):
    """How near is nearly the same."""

    pooled: float
    stretched: float
    hashes: int = AGREE


class Memory:
    """At most `capacity` queries, each for `seconds`. Safe to use from several threads."""

    def __init__(self, dimensions: int, reach: Reach, *, capacity: int, seconds: float) -> None:
        self.capacity, self.seconds, self.reach = capacity, seconds, reach
        self._lock = threading.Lock()
        self._count = 0  # queries ever; query n is at place n % capacity
        self._oldest = 0  # the first that still counts
        self.taken = np.zeros(capacity)
        self.sequence = np.zeros(capacity, np.int64)
        self.label = np.full(capacity, -1, np.int16)  # what was answered
        self.exact = np.zeros(capacity, np.uint64)
        self._full = np.zeros((2, capacity, dimensions), np.float16)
        self._lead = np.zeros((2, capacity, PROJECTED + 1), np.float32)
        bits = max(8, int(np.ceil(np.log2(capacity * HASHES))))
        self._mask = np.uint64((1 << bits) - 1)
        self._tags = np.zeros(1 << bits, np.uint32)
        self._owners = np.full(1 << bits, -1, np.int32)

    def __len__(self) -> int:
        return self._count - self._oldest

    @property
    def bytes(self) -> int:
        """What it holds, whatever was seen."""
        parts = (self.taken, self.sequence, self.label, self.exact, self._full, self._lead)
        return sum(part.nbytes for part in (*parts, self._tags, self._owners))

    def add(self, seen: Seen, row: int, sequence: int, now: float) -> int:
        """Remember one query as part of a sequence; returns its number."""
        with self._lock:
            place = self._count % self.capacity
            self.taken[place], self.sequence[place], self.label[place] = now, sequence, -1
            self.exact[place] = seen.exact[row]
            for kind, embedding in enumerate((seen.pooled[row], seen.stretched[row])):
                self._full[kind, place] = embedding
                lead = self._full[kind, place, :PROJECTED].astype(np.float32)
                self._lead[kind, place, :-1], self._lead[kind, place, -1] = lead, lead @ lead
            prints = seen.prints[row][seen.prints[row] > 0]
            at = prints & self._mask
            self._tags[at], self._owners[at] = (prints >> np.uint64(32)).astype(np.uint32), place
            self._count += 1
            self._oldest = max(self._oldest, self._count - self.capacity)
            return self._count - 1

    def answered(self, query: int, label: int) -> None:
        """What was answered to a query of this number."""
        with self._lock:
            if query >= self._oldest:
                self.label[query % self.capacity] = label

    def forget(self, now: float) -> None:
        """Let go of what is too old."""
        with self._lock:
            while self._oldest < self._count:
                if self.taken[self._oldest % self.capacity] > now - self.seconds:
                    break
                self._oldest += 1

    def near(self, seen: Seen, row: int) -> tuple[Whole, bool]:
        """The places of queries that this one nearly repeats; and whether one is the same picture.

        Those that share its fingerprint first, then the nearest by either embedding.
        """
        with self._lock:
            found = [self._alike(seen.prints[row])]
            for kind, (embedding, reach) in enumerate(
                ((seen.pooled[row], self.reach.pooled), (seen.stretched[row], self.reach.stretched))
            ):
                found += [self._within(kind, embedding, reach)]
            places = np.concatenate(found)
            return places, bool((self.exact[places] == seen.exact[row]).any())

    def _alike(self, prints: NDArray[np.uint64]) -> Whole:
        """Places whose sequence owns enough of these hashes."""
        prints = prints[prints > 0]
        at = prints & self._mask
        owners = self._owners[at].astype(np.int64)
        known = (self._tags[at] == (prints >> np.uint64(32)).astype(np.uint32)) & (owners >= 0)
        owners = owners[known & self._alive(owners)]
        if len(owners) < self.reach.hashes:
            return np.empty(0, np.int64)
        _, first, counts = np.unique(self.sequence[owners], return_index=True, return_counts=True)
        enough = counts >= self.reach.hashes
        found: Whole = owners[first[enough]][np.argsort(-counts[enough])]
        return found

    def _within(self, kind: int, embedding: Floats, reach: float) -> Whole:
        """Places whose embedding is within reach, the nearest first."""
        stop = min(self._count, self.capacity)
        lead = embedding[:PROJECTED].astype(np.float16).astype(np.float32)
        ask = np.append(-2 * lead, np.float32(1))
        distance = self._lead[kind, :stop] @ ask  # without the query's own part
        limit = reach * reach - float(lead @ lead) + 1e-4
        places = np.flatnonzero(distance <= limit)
        places = places[self._alive(places)]
        if len(places) > CANDIDATES:
            places = places[np.argpartition(distance[places], CANDIDATES)[:CANDIDATES]]
        apart = np.linalg.norm(self._full[kind, places].astype(np.float32) - embedding, axis=1)
        near = apart <= reach
        found: Whole = places[near][np.argsort(apart[near])]
        return found

    def _alive(self, places: Whole) -> NDArray[np.bool_]:
        if self._oldest == 0:
            return np.ones(len(places), bool)
        start, length = self._oldest % self.capacity, self._count - self._oldest
        return (places - start) % self.capacity < length
