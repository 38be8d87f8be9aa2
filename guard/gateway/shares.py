"""A fixed number of places, shared out: one caller's burst never keeps another from beginning.

Max-min fairness without a queue. Whoever has no place takes any that is free. Whoever has some
leaves one for each caller that was here lately or was turned away, and one for a newcomer; above
an equal share, also one for each that is below its own. So a single caller has all places, a burst
nearly all; who comes beside it begins at once, and has its share as the burst's places come free.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

REMEMBERED = 10.0  # seconds for which a place is kept for a caller who holds none


class Shares:
    """At most `limit` places taken at once. Not thread-safe: it lives in the event loop."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self.taken = 0
        self._clock = clock
        self._held: dict[str, int] = {}
        self._idle: OrderedDict[str, float] = OrderedDict()  # until when, the oldest first

    def take(self, caller: str) -> bool:
        """One more place for this caller, if there is one that is not kept for another."""
        if self.taken >= self.limit or not self._spared(caller):
            if caller not in self._held:
                self._remember(caller)
            return False
        self._idle.pop(caller, None)
        self._held[caller] = self._held.get(caller, 0) + 1
        self.taken += 1
        return True

    def give(self, caller: str) -> None:
        """Back what `take` gave. KeyError when it gave nothing."""
        self.taken -= 1
        self._held[caller] -= 1
        if not self._held[caller]:
            del self._held[caller]
            self._remember(caller)

    def _spared(self, caller: str) -> bool:
        """Whether one more leaves what is kept for others."""
        own = self._held.get(caller, 0)
        if not own:
            return True
        self._forget()
        others = len(self._held) - 1 + len(self._idle)
        if not others:
            return True
        kept = len(self._idle) + 1
        due = max(1, self.limit // (others + 1))
        if own >= due:
            kept += sum(held < due for held in self._held.values())
        return self.taken + kept < self.limit

    def _remember(self, caller: str) -> None:
        self._idle.pop(caller, None)
        self._idle[caller] = self._clock() + REMEMBERED
        if len(self._idle) > self.limit:
            self._idle.popitem(last=False)

    def _forget(self) -> None:
        now = self._clock()
        while self._idle and next(iter(self._idle.values())) <= now:
            self._idle.popitem(last=False)
