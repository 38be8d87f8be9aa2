"""Opening a store of suspects from plain settings."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from guard.errors import StoreError
from guard.suspects.folder import FolderBlobs
from guard.suspects.keys import GivenKeys, KeyFile, Keys
from guard.suspects.parts import Blobs, Database
from guard.suspects.sqlite import SqliteDatabase
from guard.suspects.suspect_store import SuspectStore

INDEX = "index.sqlite3"


def open_keys(
    key_file: str = "",
    *,
    variable: str = "",
    released: Callable[[], bytes] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Keys:
    """The source of the keys: a file that guard rotates, an environment variable, or a hook."""
    if released is not None:
        return GivenKeys(released, "keys of suspects from the key-release hook")
    if variable:

        def given() -> bytes:
            if variable not in environment:
                raise StoreError(f"keys of suspects: {variable} is not set")
            return environment[variable].encode()

        return GivenKeys(given, f"keys of suspects in {variable}")
    return KeyFile(Path(key_file))


def open_store(
    keys: Keys,
    *,
    folder: str = "",
    database: Database | None = None,
    blobs: Blobs | None = None,
) -> SuspectStore:
    """The store: index and records in a folder, where no other place is given for one of them.

    Raises StoreError where it is away, damaged, or not what the keys belong to. Nothing is
    overwritten then.
    """
    if blobs is None:
        if database is None:
            _refuse_lost_index(Path(folder))
        blobs = FolderBlobs(Path(folder))
    return SuspectStore(database or SqliteDatabase(Path(folder) / INDEX), blobs, keys)


def _refuse_lost_index(folder: Path) -> None:
    """Without its index a folder's records would look left over, and be swept."""
    index, records = folder / INDEX, folder / "records"
    try:
        lost = not index.exists() or index.stat().st_size == 0
        if lost and records.is_dir() and next(records.iterdir(), None) is not None:
            raise StoreError(
                f"{index} is missing or empty, and {records} is not: restore the index from a"
                " backup, or begin in another folder"
            )
    except OSError as error:
        raise StoreError(f"the store of suspects {folder}: {error.strerror}") from error
