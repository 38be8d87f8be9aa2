"""A store of every kind."""

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
def store(kind: Open, tmp_path: Path) -> Iterator[SuspectStore]:
    """An empty store of one kind."""
    opened = kind(tmp_path)
    yield opened
    opened.close()
