"""For all tests: a home of their own, so that no key of whoever runs them is made or used."""

import os
import tempfile
from collections.abc import Iterator

import pytest

from guard.signing.keys import HOME_VARIABLE


@pytest.fixture(scope="session", autouse=True)
def guard_home() -> Iterator[None]:
    """Keys and trust of this run, for the processes it starts too."""
    with tempfile.TemporaryDirectory() as folder:
        before = os.environ.get(HOME_VARIABLE)
        os.environ[HOME_VARIABLE] = folder
        yield
        os.environ.pop(HOME_VARIABLE)
        if before is not None:
            os.environ[HOME_VARIABLE] = before
