"""A store of every kind."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from guard.suspects.suspect_store import SuspectStore
from tests.suspects.stores import KINDS, Open


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Open:
    """What opens a store of one kind in a folder; twice in the same folder: the same store."""
    return KINDS[request.param]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder in memory, where there is one: what a power cut leaves is tested elsewhere."""
    memory = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def store(kind: Open, place: Path) -> Iterator[SuspectStore]:
    """An empty store of one kind."""
    opened = kind(place)
    yield opened
    opened.close()
