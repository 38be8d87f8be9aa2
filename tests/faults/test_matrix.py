"""A fast part of the fault matrix, and the document that the whole of it writes."""

import asyncio
import re

import pytest

from tests.faults.__main__ import play
from tests.faults.frame import Fault, Result
from tests.faults.matrix import DOCUMENT, all_faults
from tests.faults.prometheus import present

QUICK = [one for one in all_faults() if one.quick]


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    """What the fast faults did, four at once."""
    if not present():
        pytest.skip("no prometheus and promtool: deploy/ci/install services")
    chosen = [one for one in QUICK if not one.needs()]
    return {result.fault.name: result for result in asyncio.run(play(chosen, at_once=4))}


@pytest.mark.slow
@pytest.mark.parametrize("one", QUICK, ids=lambda one: one.name)
def test_a_fault_goes_as_documented(results: dict[str, Result], one: Fault) -> None:
    """Clients see what the mode says, the metric moves, the alert's rule is true, it recovers."""
    if lacking := one.needs():
        pytest.skip(lacking)
    assert results[one.name].wrong == []


def test_the_table_has_every_fault() -> None:
    """Each fault has its row, with its mode and its alert, and none of them failed."""
    text = DOCUMENT.read_text().split("<!-- faults -->")[1].split("<!-- /faults -->")[0]
    rows = [line.split(" | ") for line in text.strip().splitlines()[2:]]
    shown = {(row[0].removeprefix("| "), row[1], row[4].split()[0]) for row in rows}
    assert shown == {(one.name, one.mode.value, one.alert) for one in all_faults()}


def test_there_are_enough_faults_and_each_has_a_name_of_its_own() -> None:
    """Thirty or more."""
    names = [one.name for one in all_faults()]
    assert len(set(names)) == len(names) >= 30


def test_no_fault_is_open_unless_its_settings_say_so() -> None:
    """Unexamined answers are documented for on_error = "allow" only, and named so."""
    for one in all_faults():
        if any(outcome.startswith("OK ") for outcome in one.sees):
            assert re.search(r'on_error = "allow"', one.name)
