"""What a store is made of: a database for its index, and a place for sealed records.

SQLite and a folder on one machine, PostgreSQL and an S3 service for many. All raise StoreError
where they are away, full or damaged.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

Value = str | int | float | bytes | None


class Dialect(NamedTuple):
    """Where databases differ; all else is SQL that both understand, with `?` for values."""

    tables: str  # SELECT of the names of all tables
    alone: str  # statement that keeps other processes from making tables meanwhile
    number: str  # type of a primary key that counts by itself
    bytes: str
    find: str  # function: position of a text in a text, 0 for none
    share: str  # at the end of a SELECT: others may read these rows, none change them
    lock: str  # at the end of a SELECT: none may change these rows
    skip: str  # at the end of a SELECT: the same, and pass over what others locked


class Session(Protocol):
    """One transaction."""

    def all(self, sql: str, values: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """Do this; the rows that it gives, if any."""

    def many(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        """Do this for each row of values."""


class Database(Protocol):
    """Safe to use from several threads and processes."""

    dialect: Dialect

    def read(self) -> AbstractContextManager[Session]:
        """To look: sees one moment, and keeps nobody waiting."""

    def write(self) -> AbstractContextManager[Session]:
        """To change: all or nothing, durable once left; undone where an exception leaves it."""

    def check(self) -> None:
        """StoreError where it is damaged, as far as it can tell; a second for 100,000 suspects."""

    def backup(self, path: Path) -> None:
        """A copy of one moment in a new file; StoreError where a database has tools of its own."""

    def scrub(self) -> None:
        """What was deleted shall not linger in logs and free pages, as far as this can tell."""

    def close(self) -> None:
        """Let go of connections."""


class Blobs(Protocol):
    """Sealed records by name. A name is written once and never again."""

    def write(self, blobs: Sequence[tuple[str, bytes]]) -> None:
        """Keep all of these, durable once this returns; where it fails, as few as can be helped."""

    def read(self, name: str) -> bytes | None:
        """What was written, None where there is nothing of that name."""

    def delete(self, names: Sequence[str]) -> None:
        """Remove these; those that are not there do not matter."""

    def writing(self) -> AbstractContextManager[None]:
        """Around a write and the commit of the index that makes it known."""

    def leftovers(self) -> AbstractContextManager[Iterator[str]]:
        """Names, drafts too, none of which is being written: unknown to the index = left over."""

    def close(self) -> None:
        """Let go of connections."""
