"""Sealed records as files in one folder: written whole and durable, or not at all.

Order: write and fsync every draft, rename them, fsync the folder; only then does the caller commit
the index. A crash in between leaves drafts and records that no index knows: `leftovers`.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from guard.durable import sync_folder
from guard.errors import StoreError

DRAFT = ".draft-"


class FolderBlobs:
    """See `Blobs`. Processes that share the folder keep out of each other's way by a file lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._records = folder / "records"
        self._lock = folder / "lock"
        try:
            make_folder(self._records)
        except OSError as error:
            raise _failed("opened", error) from error

    def write(self, blobs: Sequence[tuple[str, bytes]]) -> None:
        """See `Blobs`."""
        try:
            for name, content in blobs:
                self._write_draft(name, content)
            for name, _ in blobs:
                (self._records / (DRAFT + name)).rename(self._records / name)
            sync_folder(self._records)
        except OSError as error:
            for name, _ in blobs:
                for left in (DRAFT + name, name):
                    with contextlib.suppress(OSError):
                        (self._records / left).unlink()
            raise _failed("written", error) from error

    def read(self, name: str) -> bytes | None:
        """See `Blobs`."""
        try:
            return (self._records / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failed("read", error) from error

    def delete(self, names: Sequence[str]) -> None:
        """See `Blobs`."""
        try:
            for name in names:
                (self._records / name).unlink(missing_ok=True)
            sync_folder(self._records)
        except OSError as error:
            raise _failed("deleted", error) from error

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """See `Blobs`."""
        with self._locked(fcntl.LOCK_SH):
            yield

    @contextlib.contextmanager
    def leftovers(self) -> Iterator[Iterator[str]]:
        """See `Blobs`; nobody writes meanwhile, so what no index knows will never be known."""
        with self._locked(fcntl.LOCK_EX):
            yield (entry.name for entry in os.scandir(self._records))

    def close(self) -> None:
        """See `Blobs`."""

    def _write_draft(self, name: str, content: bytes) -> None:
        path = self._records / (DRAFT + name)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            done = 0
            while done < len(content):  # a nearly full disk writes less, and says so by the count
                done += os.write(descriptor, content[done:])
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        try:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _failed("locked", error) from error
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that their names survive a power cut."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(mode=0o700, exist_ok=True)
        sync_folder(one.parent)


def _failed(what: str, error: OSError) -> StoreError:
    return StoreError(f"sealed records could not be {what}: {error.strerror}")
