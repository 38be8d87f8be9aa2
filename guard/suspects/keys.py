"""Where the keys of suspects come from: a file that guard rotates, or somebody else's keeping.

The file is readable by its owner alone and lies outside the store's folder and its backups: a
backup that held both would open everything that was ever erased.
"""

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from guard.durable import write_whole
from guard.errors import StoreError
from guard.suspects import crypt
from guard.suspects.crypt import KeyRing

MAX_FILE = 1 << 20


class Keys(Protocol):
    """A ring's source."""

    def load(self) -> KeyRing:
        """The ring as it is now. StoreError where there is none."""

    def make(self) -> KeyRing:
        """A ring for a new store: what is there already, or a new one."""

    def rotating(self) -> AbstractContextManager[None]:
        """For one rotation at a time, of all who share the source."""

    def add(self, oldest: int, /) -> KeyRing:
        """The ring with a newer key than number `oldest`, durably made where it can be."""

    def forget(self) -> KeyRing:
        """The ring without any but its newest key; the others are destroyed."""


class KeyFile:
    """A ring in a file of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> KeyRing:
        """See `Keys`."""
        path, replaced = self._path, True
        try:
            while replaced:  # a rotation overwrites the old file's bytes once its name is gone
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                with os.fdopen(descriptor, "rb") as file:
                    raw = file.read(MAX_FILE)
                    found = os.fstat(descriptor)
                mode, replaced = stat.S_IMODE(found.st_mode), found.st_nlink == 0
        except FileNotFoundError as error:
            raise StoreError(
                f"keys of suspects {path}: there is no such file, and nothing opens without;"
                " restore it from its own backup"
            ) from error
        except OSError as error:
            raise StoreError(f"keys of suspects {path}: {error.strerror}") from error
        if mode & 0o077:
            raise StoreError(
                f"keys of suspects {path} may be read or written by others: chmod 600 {path}"
            )
        return parsed(raw, f"keys of suspects {path}")

    def make(self) -> KeyRing:
        """See `Keys`."""
        if self._path.exists():
            return self.load()
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"keys of suspects {self._path}: {error.strerror}") from error
        with contextlib.suppress(FileExistsError):  # another process was first
            self._write(crypt.new_ring(), new=True)
        return self.load()

    @contextlib.contextmanager
    def rotating(self) -> Iterator[None]:
        """See `Keys`."""
        path = self._path.with_name(f".{self._path.name}.lock")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"keys of suspects {self._path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def add(self, oldest: int, /) -> KeyRing:
        """See `Keys`."""
        ring = self.load()
        if ring.current <= oldest:
            ring = crypt.with_new_key(ring)
            self._write(ring, new=False)
        return ring

    def forget(self) -> KeyRing:
        """See `Keys`; the old file's bytes are overwritten, as far as the disk obeys."""
        ring = crypt.newest_only(self.load())
        with contextlib.suppress(OSError), self._path.open("r+b") as old:
            self._write(ring, new=False)
            old.write(bytes(os.fstat(old.fileno()).st_size))
            old.flush()
            os.fsync(old.fileno())
            return ring
        self._write(ring, new=False)
        return ring

    def _write(self, ring: KeyRing, *, new: bool) -> None:
        """All or nothing, and durable: without its keys a store is lost."""
        try:
            write_whole(self._path, crypt.dump_ring(ring), new=new)
        except FileExistsError:
            raise
        except OSError as error:
            raise StoreError(f"keys of suspects {self._path}: {error.strerror}") from error


class GivenKeys:
    """A ring that somebody else keeps, and rotates: an environment variable, a key broker."""

    def __init__(self, give: Callable[[], bytes], what: str) -> None:
        self._give = give
        self._what = what

    def load(self) -> KeyRing:
        """See `Keys`."""
        return parsed(self._give(), self._what)

    def make(self) -> KeyRing:
        """See `Keys`."""
        return self.load()

    def rotating(self) -> AbstractContextManager[None]:
        """See `Keys`; who keeps the keys sees to that."""
        return contextlib.nullcontext()

    def add(self, _oldest: int, /) -> KeyRing:
        """See `Keys`; only who keeps them can make one."""
        return self.load()

    def forget(self) -> KeyRing:
        """See `Keys`; only in this process: who keeps the keys must destroy the old ones."""
        return crypt.newest_only(self.load())


def parsed(raw: bytes, what: str) -> KeyRing:
    """The ring in these bytes; StoreError about `what`, never quoting it."""
    try:
        return crypt.parse_ring(raw)
    except ValueError:
        raise StoreError(f"{what}: malformed") from None
