"""A fast part of the fault matrix, and the document that the whole of it writes."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

from tests.faults.__main__ import play
from tests.faults.defence import PASSED, by_word
from tests.faults.frame import Fault, Mode, Result
from tests.faults.matrix import all_faults, rows
from tests.faults.prometheus import present
from tests.faults.stage import Stage

QUICK = [one for one in all_faults() if one.quick]


async def nothing_breaks(stage: Stage) -> AsyncIterator[None]:
    """No fault at all."""
    await stage.gateway()
    yield
    yield


# What the frame must complain about: a fault that has no effect, one that is open and not closed.
DUDS = {
    "broken: AssertionError: not in time": Fault(
        "nothing", Mode.CLOSED, ("UNAVAILABLE",), "up", "GuardDown", nothing_breaks, patience=3
    ),
    "not closed": Fault(
        "not what it says", Mode.CLOSED, ("OK ABSTAIN",), PASSED, "GuardPassesUnexamined",
        by_word("member-raises", upstream=True, on_error="allow"),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    """What the fast faults did, four at once."""
    if not present():
        pytest.skip("no prometheus and promtool: deploy/ci/install services")
    chosen = [one for one in QUICK if not one.needs()]
    played = asyncio.run(play([*chosen, *DUDS.values()], at_once=4))
    return {result.fault.name: result for result in played}


@pytest.mark.slow
@pytest.mark.parametrize("one", QUICK, ids=lambda one: one.name)
def test_a_fault_goes_as_documented(results: dict[str, Result], one: Fault) -> None:
    """Clients see what the mode says, the metric moves, the alert's rule is true, it recovers."""
    if lacking := one.needs():
        pytest.skip(lacking)
    assert results[one.name].wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("complaint", DUDS)
def test_the_frame_notices_what_is_not_as_documented(
    results: dict[str, Result], complaint: str
) -> None:
    """A fault without effect, and one that lets pictures pass unexamined, do not pass."""
    assert any(wrong.startswith(complaint) for wrong in results[DUDS[complaint].name].wrong)


def test_the_table_has_every_fault() -> None:
    """Each fault has its row, with its mode and its alert, and none of them failed."""
    table = [line.split(" | ") for line in rows().values()]
    shown = {(row[0].removeprefix("| "), row[1], row[4].split()[0]) for row in table}
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
