"""Fixtures: a console with suspects, and somebody who is logged in to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.console.browsing import Browser
from tests.console.stock import Stock, stocked


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stock]:
    """A console with twelve suspects, for a module whose tests label none."""
    with stocked(tmp_path_factory.mktemp("console")) as found:
        yield found


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Stock]:
    """The same for one test alone."""
    with stocked(tmp_path) as found:
        yield found


@pytest.fixture
def ada(stock: Stock) -> Browser:
    """An analyst who is logged in."""
    return Browser(stock.port.url).log_in()
