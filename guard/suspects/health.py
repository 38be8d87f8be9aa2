"""Whether a store of suspects does what it is asked, told by all who ask something of it."""

import threading

from guard import metrics


class Health:
    """`guard_suspects_up` of one kind of store: 1 while nobody's last request of it failed.

    A store may count well and keep nothing, so a success only takes back the same user's failure.
    """

    def __init__(self, kind: str = "sqlite") -> None:
        self._gauge = metrics.SUSPECTS_UP.labels(kind)
        self._lock = threading.Lock()
        self._failing: set[str] = set()

    def well(self, user: str) -> None:
        """What this user last asked was done."""
        with self._lock:
            self._failing.discard(user)
            self._gauge.set(not self._failing)

    def failed(self, user: str) -> None:
        """What this user last asked failed."""
        with self._lock:
            self._failing.add(user)
            self._gauge.set(0)
