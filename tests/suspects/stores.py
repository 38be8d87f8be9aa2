"""The stores that the contract is tested with: `kinds` opens one in a folder.

Everything in `test_store*.py` is run once for each kind here. A kind that needs a service which is
not there is skipped, visibly.
"""

import atexit
import hashlib
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import pytest

from guard.suspects.opening import open_keys, open_store
from guard.suspects.suspect_store import SuspectStore
from tests.suspects import services

Open = Callable[[Path], SuspectStore]
ATTACH = "GUARD_TEST_SERVICES"


def embedded(folder: Path) -> SuspectStore:
    """SQLite and sealed files; the keys beside the store's folder."""
    return open_store(open_keys(str(folder / "keys" / "suspects.key")), folder=str(folder / "kept"))


def shared(folder: Path) -> SuspectStore:
    """PostgreSQL and S3, a database and a prefix for each folder."""
    if missing := services.lacking():
        pytest.skip(missing)
    here = _services()
    place = f"store{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}"
    here.ensure(place)
    keys = open_keys(str(folder / "keys" / "suspects.key"))
    # One process: whatever the index does not know is left over. Several: see `ObjectBlobs`.
    spared = -60.0 if multiprocessing.parent_process() is None else 3600.0
    return open_store(keys, database=here.database(place), blobs=here.blobs(place, spared=spared))


@cache
def _services() -> services.Services:
    """Started once, and ended with the process; its children use them too."""
    if ports := os.environ.get(ATTACH):
        return services.Services.at(ports)
    place = tempfile.TemporaryDirectory(prefix="guard-services-")
    folder = Path(place.name)
    folder.chmod(0o755)  # PostgreSQL runs as another user
    running = services.Services(folder).__enter__()
    os.environ[ATTACH] = str(running)
    owner = os.getpid()
    atexit.register(lambda: os.getpid() == owner and (running.__exit__(), place.cleanup()))
    return running


KINDS: Mapping[str, Open] = {"embedded": embedded, "shared": shared}
