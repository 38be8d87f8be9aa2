"""What is made from files, made anew when they change: certificates and keys, without a restart."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from guard import metrics
from guard.errors import ConfigError

T = TypeVar("T")
Stamp = tuple[tuple[int, int, int], ...]
log = logging.getLogger(__name__)


class Watched(Generic[T]):
    """The newest good `make()` of some files; when the files become unusable the last one stays.

    Raises what `make` raises, but only here: later failures are logged, and counted as
    `guard_reload_failures_total{what}`. Several threads may ask: at worst it is made twice.
    """

    def __init__(self, what: metrics.Watch, paths: Sequence[str], make: Callable[[], T]) -> None:
        self._what, self._make = what, make
        self._paths = [Path(path) for path in paths if path]
        self._seen = self._stamp()
        self._value = make()

    def get(self) -> T:
        """As of now; a look at the files costs some microseconds."""
        stamp = self._stamp()
        if stamp != self._seen:
            self._seen = stamp
            try:
                self._value = self._make()
                log.info("%s: read again", self._what)
            except Exception as error:
                metrics.RELOAD_FAILURES.labels(self._what).inc()
                log.error("%s: the new files are not used: %s", self._what, error)
        return self._value

    def _stamp(self) -> Stamp:
        return tuple(_stamp(path) for path in self._paths)


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_mtime_ns, found.st_size)


def read(path: str, key: str) -> bytes:
    """A file's bytes; ConfigError that names the setting `key`."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{key}: {path}: {error.strerror or error}", key=key) from error
