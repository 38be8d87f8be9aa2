"""Who is logged in: random names in a cookie, everything else here in memory.

A restart logs everybody out. The cookie's value is kept as a hash: a look at the memory of the
table alone logs nobody in.
"""

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from guard.console.walk import Walk
from guard.gateway.identity import Identity

PER_PERSON = 8  # sessions; the oldest goes
AT_MOST = 4096  # sessions in all


@dataclass
class Session:
    """One person in one browser. `alive` says who that is now, None once they may no more."""

    name: str
    alive: Callable[[], Identity | None]
    began: float
    used: float
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    said: str = ""  # what the next page tells, once
    labelled: int = 0  # since the log-in
    walk: Walk = field(default_factory=Walk)


class Sessions:
    """All sessions; times are seconds of `clock`."""

    def __init__(
        self, *, lasts: float, idle: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.lasts, self.idle, self._clock = lasts, idle, clock
        self._held: OrderedDict[bytes, Session] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, name: str, alive: Callable[[], Identity | None]) -> str:
        """A session for this person; what the cookie has to say."""
        token, now = secrets.token_urlsafe(32), self._clock()
        with self._lock:
            own = [key for key, one in self._held.items() if one.name == name]
            spare = own[: max(0, len(own) - PER_PERSON + 1)]
            for key in spare or ([next(iter(self._held))] if len(self._held) >= AT_MOST else []):
                del self._held[key]
            self._held[_key(token)] = Session(name, alive, now, now)
        return token

    def find(self, token: str) -> tuple[Session, Identity] | None:
        """Whose cookie that is, while it is good."""
        key, now = _key(token), self._clock()
        with self._lock:
            session = self._held.get(key)
            if session is None:
                return None
            identity = None
            if now - session.began < self.lasts and now - session.used < self.idle:
                identity = session.alive()
            if identity is None:
                del self._held[key]
                return None
            session.used = now
            return session, identity

    def end(self, token: str) -> None:
        """Forget it."""
        with self._lock:
            self._held.pop(_key(token), None)


class Attempts:
    """Wrong passwords, counted by name and by address: many in a while, and one has to wait."""

    def __init__(
        self,
        *,
        allowed: int = 8,
        seconds: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._allowed, self._seconds, self._clock = allowed, seconds, clock
        self._failed: OrderedDict[str, list[float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait(self, *keys: str) -> float:
        """Seconds until these may try again; 0: now."""
        now, longest = self._clock(), 0.0
        with self._lock:
            for key in keys:
                recent = [at for at in self._failed.get(key, ()) if now - at < self._seconds]
                if len(recent) >= self._allowed:
                    longest = max(longest, recent[-self._allowed] + self._seconds - now)
        return longest

    def failed(self, *keys: str) -> None:
        """They were wrong."""
        now = self._clock()
        with self._lock:
            for key in keys:
                recent = [at for at in self._failed.pop(key, ()) if now - at < self._seconds]
                self._failed[key] = [*recent[-self._allowed :], now]
            while len(self._failed) > AT_MOST:
                self._failed.popitem(last=False)

    def good(self, key: str) -> None:
        """This one got in: earlier slips are forgiven."""
        with self._lock:
            self._failed.pop(key, None)


def _key(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
