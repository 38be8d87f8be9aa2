"""Fixtures: one tiny pack for all tests here."""

from pathlib import Path

import pytest

from guard.testing import make_pack


@pytest.fixture(scope="session")
def tiny_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack named "tiny", made without torch."""
    return make_pack(tmp_path_factory.mktemp("packs") / "tiny")
