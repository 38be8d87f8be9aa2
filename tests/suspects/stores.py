"""The stores that the contract is tested with: `kinds` opens one in a folder.

Everything in `test_store*.py` is run once for each kind here. A kind that needs a service which is
not there is skipped, visibly.
"""

import atexit
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import pytest

from guard.suspects.opening import open_keys, open_store
from guard.suspects.suspect_store import SuspectStore
from tests.suspects import services

Open = Callable[[Path], SuspectStore]


def embedded(folder: Path) -> SuspectStore:
    """SQLite and sealed files; the keys beside the store's folder."""
    return open_store(open_keys(str(folder / "keys" / "suspects.key")), folder=str(folder / "kept"))


def shared(folder: Path) -> SuspectStore:
    """PostgreSQL and S3, a database and a prefix for each folder."""
    if missing := services.lacking():
        pytest.skip(missing)
    here = _services()
    name = folder / "place"
    if not name.exists():
        folder.mkdir(parents=True, exist_ok=True)
        name.write_text(here.place())
    place = name.read_text()
    keys = open_keys(str(folder / "keys" / "suspects.key"))
    return open_store(keys, database=here.database(place), blobs=here.blobs(place, spared=-60))


@cache
def _services() -> services.Services:
    """Started once, and ended with the process."""
    place = tempfile.TemporaryDirectory(prefix="guard-services-")
    folder = Path(place.name)
    folder.chmod(0o755)  # PostgreSQL runs as another user
    running = services.Services(folder).__enter__()
    atexit.register(lambda: (running.__exit__(), place.cleanup()))
    return running


KINDS: Mapping[str, Open] = {"embedded": embedded, "shared": shared}
