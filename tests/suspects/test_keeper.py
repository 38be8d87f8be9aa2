"""The keeper: retention when it is due, a new key after an erasure, numbers for who watches."""

import logging
import time

import pytest
from prometheus_client import REGISTRY

from guard.suspects import keeper as keeping
from guard.suspects.keeper import Keeper
from tests.suspects.shelf import AWAY, Shelf, suspects

DAY = 86400.0


def counted(name: str, **labels: str) -> float:
    """A metric's value."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        """What was set."""
        return self.now


def keeper(shelf: Shelf, clock: Clock, *, rotate: bool = True) -> Keeper:
    """A keeper of this store, not started."""
    return Keeper(shelf, keep_seconds=DAY, quota_bytes=1000, rotate=rotate, clock=clock)


def test_what_is_there_is_measured() -> None:
    """Counts by state, size, quota and the age of the oldest are metrics."""
    shelf = Shelf()
    shelf.put(suspects(3))
    shelf.size = 900
    keeper(shelf, Clock()).once()
    assert counted("guard_suspects_stored", state="open") == 3
    assert counted("guard_suspects_bytes") == 900
    assert counted("guard_suspects_quota_bytes") == 1000
    assert counted("guard_suspects_oldest_timestamp_seconds") == suspects(1)[0].taken
    assert counted("guard_suspects_up", store="sqlite") == 1


def test_retention_is_done_when_it_is_due() -> None:
    """For age at the start and then now and then; for size at once, down to below the quota."""
    shelf, clock = Shelf(), Clock()
    watch = keeper(shelf, clock)
    watch.once()
    watch.once()
    assert shelf.retained == [(DAY, None)]
    shelf.size = 1001
    watch.once()
    assert shelf.retained[1:] == [(DAY, 950)]
    clock.now += 3600
    watch.once()
    assert shelf.retained[2:] == [(DAY, None)]


def test_an_erasure_is_followed_by_a_new_key() -> None:
    """Once, whoever erased; and the metric says since when it was due."""
    shelf, rotated = Shelf(), counted("guard_suspects_rotated_total")
    watch = keeper(shelf, Clock())
    watch.once()
    assert shelf.rotations == 0
    shelf.erased_at = 123.0
    watch.once()
    watch.once()
    assert shelf.rotations == 1
    assert counted("guard_suspects_rotated_total") == rotated + 1
    assert counted("guard_suspects_rotation_due_timestamp_seconds") == 0


def test_somebody_else_rotates_where_the_settings_say_so() -> None:
    """Without rotate_after_erase the metric shows what is due, and nothing is done."""
    shelf = Shelf()
    shelf.erased_at = 123.0
    keeper(shelf, Clock(), rotate=False).once()
    assert (shelf.rotations, counted("guard_suspects_rotation_due_timestamp_seconds")) == (0, 123)


def test_a_failing_store_is_counted_and_tried_again() -> None:
    """The task's counter moves and the store is down; then up, and what was due is done."""
    shelf, clock = Shelf(), Clock()
    before = counted("guard_suspects_failures_total", task="count")
    shelf.broken, shelf.erased_at = AWAY, 123.0
    watch = keeper(shelf, clock)
    watch.once()
    assert counted("guard_suspects_failures_total", task="count") == before + 1
    assert counted("guard_suspects_up", store="sqlite") == 0
    assert shelf.rotations == 1  # what does work is done
    shelf.broken = None
    watch.once()
    assert counted("guard_suspects_up", store="sqlite") == 1


def test_it_looks_by_itself_until_it_is_closed() -> None:
    """The first look is at once; closing waits for none."""
    shelf = Shelf()
    watch = Keeper(shelf, keep_seconds=DAY, quota_bytes=1, rotate=True, every=0.05)
    watch.start()
    end = time.monotonic() + 5
    while not shelf.retained and time.monotonic() < end:
        time.sleep(0.005)
    watch.close()
    assert shelf.retained


def test_each_task_fails_by_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Retention and rotation are counted as what they are, said once, and said by kind alone."""
    shelf, clock = Shelf(), Clock()
    shelf.erased_at = 123.0
    watch = keeper(shelf, clock)
    names = ("retention", "rotation", "count")
    before = {name: counted("guard_suspects_failures_total", task=name) for name in names}

    def broken(**_options: object) -> int:
        raise ValueError("a canary")

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(shelf, "upkeep", broken)
        patch.setattr(shelf, "rotate", broken)
        watch.once()
        watch.once()
    after = {name: counted("guard_suspects_failures_total", task=name) for name in names}
    assert [after[name] - before[name] for name in names] == [2, 2, 0]
    assert counted("guard_suspects_up", store="sqlite") == 0
    assert len(caplog.records) == 2
    assert ("ValueError" in caplog.text, "canary" in caplog.text) == (True, False)
    watch.once()
    assert (shelf.rotations, len(shelf.retained)) == (1, 1)
    assert counted("guard_suspects_oldest_timestamp_seconds") == 0


def test_what_fails_is_tried_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only after the usual time; and a closed keeper looks no more."""
    monkeypatch.setattr(keeping, "RETRY_SECONDS", 0.02)
    shelf = Shelf()
    shelf.broken = AWAY
    watch = Keeper(shelf, keep_seconds=DAY, quota_bytes=1, rotate=True, every=60)
    watch.start()
    time.sleep(0.2)
    shelf.broken = None
    end = time.monotonic() + 5
    while not shelf.retained and time.monotonic() < end:
        time.sleep(0.005)
    assert shelf.retained
    start = time.monotonic()
    watch.close()
    assert time.monotonic() - start < 5
    assert not watch._thread.is_alive()
