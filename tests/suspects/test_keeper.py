"""The keeper: retention when it is due, a new key after an erasure, numbers for who watches."""

import time

from prometheus_client import REGISTRY

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
