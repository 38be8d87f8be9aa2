"""A fixed number of places, shared out: one caller's burst never takes what is another's.

Max-min fairness without a queue. Up to an equal share a caller takes any free place. Above it,
whatever others lack of theirs is kept for them: for those at it and those who were here a moment
ago the whole share, for those who were here lately and for a newcomer one place. So a single
caller has all places, and with many each is sure of its share, whatever the others do. Connections
that come for a call or two and go are no crowd: only who came back is remembered.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from itertools import takewhile

MOMENT = 1.0  # seconds for which its whole share is kept for a caller who holds none
REMEMBERED = 10.0  # and one place
REGULAR = 4  # calls after which a caller is remembered


class Shares:
    """At most `limit` places taken at once. Not thread-safe: it lives in the event loop."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self.taken = 0
        self._clock = clock
        self._held: dict[str, int] = {}
        self._idle: OrderedDict[str, float] = OrderedDict()  # until when, the oldest first
        self._calls: OrderedDict[str, int] = OrderedDict()  # of each, who called last at the end

    def take(self, caller: str) -> bool:
        """One more place for this caller, if there is one that is not kept for another."""
        if not self.free_for(caller):
            if caller not in self._held:
                self._remember(caller)
            return False
        self._idle.pop(caller, None)
        self._calls[caller] = self._calls.pop(caller, 0) + 1
        if len(self._calls) > 2 * self.limit:
            self._calls.popitem(last=False)
        self._held[caller] = self._held.get(caller, 0) + 1
        self.taken += 1
        return True

    def free_for(self, caller: str) -> bool:
        """Whether `take` would give one."""
        return self.taken < self.limit and self._spared(caller)

    def give(self, caller: str) -> None:
        """Back what `take` gave. KeyError when it gave nothing."""
        self.taken -= 1
        self._held[caller] -= 1
        if not self._held[caller]:
            del self._held[caller]
            if self._calls.get(caller, 0) >= REGULAR:
                self._remember(caller)

    def _spared(self, caller: str) -> bool:
        """Whether one more leaves what is kept for others."""
        own = self._held.get(caller, 0)
        if not own:
            return True
        now = self._forget()
        others = len(self._held) - 1 + len(self._idle)
        due = max(1, self.limit // (others + 1))
        if not others or own < due:
            return True
        latest = now + REMEMBERED - MOMENT
        here = sum(
            1 for _ in takewhile(lambda until: until > latest, reversed(self._idle.values()))
        )
        kept = due * here + (len(self._idle) - here) + 1
        kept += sum(max(0, due - held) for held in self._held.values())
        return self.taken + kept < self.limit

    def _remember(self, caller: str) -> None:
        self._idle.pop(caller, None)
        self._idle[caller] = self._clock() + REMEMBERED
        if len(self._idle) > self.limit // 4:
            self._idle.popitem(last=False)

    def _forget(self) -> float:
        """Whoever was here too long ago; the time now."""
        now = self._clock()
        while self._idle and next(iter(self._idle.values())) <= now:
            self._idle.popitem(last=False)
        return now
