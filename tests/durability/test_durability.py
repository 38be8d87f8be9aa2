"""A fast part of what `python -m tests.durability` shows at length, and that it can fail."""

import pytest

from tests.durability import full, rounds
from tests.durability.mount import lacking

NEEDS_FUSE = pytest.mark.skipif(bool(lacking()), reason=lacking() or "can mount")


@pytest.mark.slow
def test_what_was_acknowledged_survives_kill_9() -> None:
    """Nothing acknowledged is lost or unreadable, and no record is left over."""
    tally = rounds.kill(25, seed=5)
    assert tally.wrong == []
    assert (tally.rounds, tally.acknowledged > 25) == (25, True)


def test_an_acknowledgement_that_comes_too_early_is_noticed() -> None:
    """The harness is not content with a store that says ok and keeps nothing."""
    assert any(one.startswith("lost") for one in rounds.kill(4, seed=1, careless=True).wrong)


@NEEDS_FUSE
@pytest.mark.slow
def test_what_was_acknowledged_survives_a_power_cut() -> None:
    """Nothing acknowledged is lost, though what was not synced is gone, torn or out of order."""
    tally = rounds.powercut(6, seed=2)
    assert tally.wrong == []
    assert tally.rounds == 6


@NEEDS_FUSE
@pytest.mark.slow
@pytest.mark.parametrize("path", ["-wal", "records", "keys"])
def test_a_sync_that_is_left_out_is_noticed(path: str) -> None:
    """Without the syncs of its log, its records or its keys the store does not pass."""
    assert rounds.powercut(8, seed=3, lie=path).wrong


@NEEDS_FUSE
@pytest.mark.slow
def test_a_gateway_on_a_broken_disk_answers_everybody() -> None:
    """No inference fails while the disk is full or broken; after it, suspects are kept again."""
    tally = full.cycles(2, seed=4)
    assert tally.wrong == []
    assert tally.failed > 0
