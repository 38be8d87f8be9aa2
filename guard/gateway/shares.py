"""A fixed number of places, shared out: one caller's burst never takes what another is due.

Max-min fairness without a queue: while there is room a caller may take any number; a place that is
another's due is kept free for it. So a single caller has all places, and with many each is sure of
its share, whatever the others do.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

REMEMBERED = 10.0  # seconds for which a caller who holds nothing is still due a share


class Shares:
    """At most `limit` places taken at once. Not thread-safe: it lives in the event loop."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self.taken = 0
        self._clock = clock
        self._held: dict[str, int] = {}
        self._idle: OrderedDict[str, float] = OrderedDict()  # until when, the oldest first

    def take(self, caller: str) -> bool:
        """One more place for this caller, if there is one that no other is due."""
        if self.taken >= self.limit or not self._spared(caller):
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
            self._idle[caller] = self._clock() + REMEMBERED
            if len(self._idle) > self.limit:
                self._idle.popitem(last=False)

    def _spared(self, caller: str) -> bool:
        """Whether one more is within the caller's due, or is due to nobody else."""
        own = self._held.get(caller, 0)
        if not own:
            return True
        self._forget()
        others = len(self._held) - 1 + len(self._idle)
        if not others:
            return True
        due = max(1, self.limit // (others + 1))
        if own < due:
            return True
        kept = due * len(self._idle) + due  # for those who hold nothing, and a newcomer
        kept += sum(max(0, due - n) for n in self._held.values())
        return self.taken + kept < self.limit

    def _forget(self) -> None:
        now = self._clock()
        while self._idle and next(iter(self._idle.values())) <= now:
            self._idle.popitem(last=False)
