"""Fixtures: one tiny pack for all tests here, and a store of suspects."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from guard.suspects.suspect_store import SuspectStore
from guard.testing import make_pack
from tests.gateway.shelf import open_shelf, swift_folder


@pytest.fixture(scope="session")
def tiny_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack named "tiny", made without torch."""
    return make_pack(tmp_path_factory.mktemp("packs") / "tiny")


@pytest.fixture
def store() -> Iterator[SuspectStore]:
    """An embedded store."""
    with swift_folder() as folder:
        store = open_shelf(folder)
        yield store
        store.close()
