"""The index in one SQLite file, for one machine.

Through apsw, never the standard library: its SQLite 3.40 can corrupt a WAL that two connections
write (WAL-reset bug, fixed in 3.51.3). `synchronous=FULL`, because NORMAL loses what was
acknowledged when the power fails; `secure_delete`, so that a deleted key is overwritten; no `mmap`.
"""

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw

from guard.durable import sync_folder
from guard.errors import StoreError
from guard.suspects.folder import make_folder
from guard.suspects.parts import Dialect, Session, Value

APPLICATION = 0x47535553  # "GSUS": this file is an index of suspects
BUSY_MS = 10_000
PRAGMAS = (
    "synchronous=FULL",
    "secure_delete=ON",
    "trusted_schema=OFF",
    "temp_store=MEMORY",
    "mmap_size=0",
    "cache_size=-16000",
    "wal_autocheckpoint=1000",
)
DAMAGED = "the index of suspects is damaged: restore it from a backup"
IDLE = 8  # connections for reading that are kept open


class SqliteDatabase:
    """See `Database`."""

    dialect = Dialect(
        tables="SELECT name FROM sqlite_master WHERE type = 'table'",
        alone="SELECT 1",
        number="INTEGER PRIMARY KEY",
        bytes="BLOB",
        find="instr",
        share="",
        lock="",
        skip="",
    )

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writing = threading.Lock()
        self._idle: list[apsw.Connection] = []
        try:
            make_folder(path.parent)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            sync_folder(path.parent)
        except OSError as error:
            raise StoreError(f"the index of suspects {path}: {error.strerror}") from error
        with _errors():
            self._writer = self._open(apsw.SQLITE_OPEN_READWRITE)
            self._own()

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """See `Database`."""
        with _errors():
            connection = self._take()
            try:
                connection.execute("BEGIN")
                yield SqliteSession(connection)
            except apsw.Error:
                connection.close(True)
                raise
            finally:
                self._give(connection)

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        """See `Database`."""
        with self._writing, _errors():
            connection = self._writer
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield SqliteSession(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def check(self) -> None:
        """See `Database`."""
        with self.read() as session:
            if session.all("PRAGMA quick_check(1)") != [("ok",)]:
                raise StoreError(DAMAGED)

    def backup(self, path: Path) -> None:
        """See `Database`."""
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise StoreError(f"backup {path}: {error.strerror}") from error
        with _errors(), contextlib.closing(self._open(apsw.SQLITE_OPEN_READWRITE)) as source:
            copy = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
            with contextlib.closing(copy), copy.backup("main", source, "main") as backup:
                while not backup.done:
                    backup.step(1000)
            copy = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
            with contextlib.closing(copy):
                copy.pragma("journal_mode", "delete")  # one file, and no log beside it
        sync_folder(path.parent)

    def scrub(self) -> None:
        """See `Database`: empties the log beside the file; pages were overwritten before."""
        with self._writing, _errors(), contextlib.suppress(apsw.BusyError, apsw.LockedError):
            self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def close(self) -> None:
        """See `Database`."""
        with self._writing, _errors():
            for connection in (*self._idle, self._writer):
                connection.close(True)
            self._idle = []

    def _open(self, flags: int) -> apsw.Connection:
        connection = apsw.Connection(str(self._path), flags=flags | apsw.SQLITE_OPEN_NOFOLLOW)
        connection.set_busy_timeout(BUSY_MS)
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def _own(self) -> None:
        """Make the file ours where it is empty; refuse one that is something else."""
        writer = self._writer
        if writer.pragma("application_id") != APPLICATION:
            with self.write() as session:  # another process may be making it ours just now
                if writer.pragma("application_id") != APPLICATION:
                    if session.all("SELECT name FROM sqlite_master LIMIT 1"):
                        raise StoreError(f"{self._path} is no index of suspects")
                    writer.pragma("application_id", APPLICATION)
        if writer.pragma("journal_mode") != "wal":
            writer.pragma("journal_mode", "wal")

    def _take(self) -> apsw.Connection:
        with contextlib.suppress(IndexError):
            return self._idle.pop()
        return self._open(apsw.SQLITE_OPEN_READWRITE)

    def _give(self, connection: apsw.Connection) -> None:
        """Back to the idle ones; one that had an error is closed already."""
        with contextlib.suppress(apsw.ConnectionClosedError):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if len(self._idle) < IDLE:
                self._idle.append(connection)
            else:
                connection.close(True)


class SqliteSession:
    """See `Session`."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def all(self, sql: str, values: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """See `Session`."""
        return list(self._connection.execute(sql, values))

    def many(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        """See `Session`."""
        self._connection.executemany(sql, rows)


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """SQLite's errors as ours. Their text speaks of the file, never of what is in it."""
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise StoreError(DAMAGED) from error
    except apsw.FullError as error:
        raise StoreError("the index of suspects cannot grow: the disk is full") from error
    except apsw.Error as error:
        raise StoreError(f"the index of suspects: {type(error).__name__}: {error}") from error
