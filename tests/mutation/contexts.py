"""A pytest plugin: which tests run which lines, and how long each takes; and branch coverage.

Lines that other processes run are not seen here. What runs on other threads is.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coverage
import pytest

FILE = "GUARD_MUTATION_MAP"
INCLUDE = "GUARD_MUTATION_INCLUDE"


class Plugin:
    """Writes {"lines": {path: {line: [test]}}, "seconds": {test: s}} to $GUARD_MUTATION_MAP."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        include = os.environ[INCLUDE].split(",")
        self._coverage = coverage.Coverage(
            data_file=None, branch=True, include=include, config_file=False
        )
        self._coverage.start()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
        """One test, its set-up and its end."""
        start = time.monotonic()
        self._coverage.switch_context(item.nodeid)
        yield
        self._coverage.switch_context("")
        self._seconds[item.nodeid] = round(time.monotonic() - start, 3)

    def pytest_sessionfinish(self) -> None:
        """Everything has run."""
        self._coverage.stop()
        file = Path(os.environ[FILE])
        self._coverage.json_report(outfile=str(file), show_contexts=True)
        told = json.loads(file.read_text())["files"]
        lines = {path: one["contexts"] for path, one in told.items()}
        summary = {
            path: {**one["summary"], "lines": one["missing_lines"], "arcs": one["missing_branches"]}
            for path, one in told.items()
        }
        told = {"lines": lines, "seconds": self._seconds, "coverage": summary}
        file.write_text(json.dumps(told))
