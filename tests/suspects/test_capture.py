"""Capture: never in the way, nothing acknowledged lost, what cannot be kept counted."""

import logging
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from prometheus_client import REGISTRY

from guard.suspects import capture
from guard.suspects.capture import Capture
from tests.suspects.shelf import AWAY, Shelf, poisoned, suspect, suspects


def counted(name: str, **labels: str) -> float:
    """A metric's value."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Returns as soon as the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    """A store that works."""
    yield Shelf()


def opened(shelf: Shelf, *, count: int = 100, size: int = 1 << 20, drain: float = 1.0) -> Capture:
    """A capture into this store."""
    return Capture(shelf, max_queue=count, max_bytes=size, drain=drain)


def test_what_is_offered_is_kept_with_its_codes(shelf: Shelf) -> None:
    """Every image arrives, in order, its near codes filled in; a batch shares a commit."""
    kept = counted("guard_suspects_kept_total")
    caught = opened(shelf)
    assert all(caught.offer(one) for one in suspects(40))
    caught.close()
    assert [one.id for one in shelf.kept] == [one.id for one in suspects(40)]
    assert all(one.near == shelf.near(one.image) for one in shelf.kept)
    assert len(shelf.batches) < 10
    assert counted("guard_suspects_kept_total") == kept + 40
    assert (caught.waiting, counted("guard_suspects_queued")) == (0, 0)


def test_offering_never_waits_for_the_store(shelf: Shelf) -> None:
    """While the store hangs an offer takes no time, and a full queue refuses and counts."""
    before = counted("guard_suspects_dropped_total", reason="queue")
    shelf.hanging.clear()
    caught = opened(shelf, count=20)
    start = time.perf_counter()
    taken = [caught.offer(one) for one in suspects(50)]
    seconds = time.perf_counter() - start
    shelf.hanging.set()
    caught.close()
    assert (sum(taken), seconds < 0.5) == (20, True)
    assert counted("guard_suspects_dropped_total", reason="queue") == before + 30
    assert len(shelf.kept) == 20


def test_memory_is_bounded_too(shelf: Shelf) -> None:
    """Large images fill the queue by their size, however few they are."""
    shelf.hanging.clear()
    caught = opened(shelf, count=1000, size=1 << 20)
    taken = sum(caught.offer(suspect(number, side=128)) for number in range(20))
    shelf.hanging.set()
    caught.close()
    assert taken == (1 << 20) // (3 * 128 * 128 * 4 + 3 * 4 * 2 + capture.OVERHEAD)
    assert len(shelf.kept) == taken


def test_a_store_that_fails_is_asked_until_it_answers(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is lost by an outage that the queue outlasts; it is counted, and logged once."""
    failed = counted("guard_suspects_failures_total", task="put")
    shelf.broken = AWAY
    caught = opened(shelf)
    with caplog.at_level(logging.WARNING):
        for one in suspects(10):
            caught.offer(one)
        until(lambda: shelf.asked >= 3)
        assert counted("guard_suspects_up", store="sqlite") == 0
        shelf.broken, began = None, time.monotonic()
        until(lambda: len(shelf.kept) == 10)
    assert time.monotonic() - began < 5
    until(lambda: counted("guard_suspects_up", store="sqlite") == 1)
    caught.close()
    assert counted("guard_suspects_failures_total", task="put") >= failed + 3
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_one_bad_suspect_takes_no_neighbour_down(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    """What the store refuses for what it is goes alone, and its words are not repeated."""
    before = counted("guard_suspects_dropped_total", reason="error")
    caught = opened(shelf)
    with caplog.at_level(logging.ERROR):
        for one in (suspect(1), poisoned(2), suspect(3)):
            caught.offer(one)
        caught.close()
    assert [one.id for one in shelf.kept] == [suspect(1).id, suspect(3).id]
    assert counted("guard_suspects_dropped_total", reason="error") == before + 1
    assert "canary" not in caplog.text
    assert "ValueError" in caplog.text


def test_closing_gives_up_after_a_while(shelf: Shelf) -> None:
    """A store that stays away keeps nobody from stopping; what is lost is counted."""
    before = counted("guard_suspects_dropped_total", reason="closing")
    shelf.broken = AWAY
    caught = opened(shelf, drain=0.3)
    for one in suspects(7):
        caught.offer(one)
    start = time.monotonic()
    caught.close()
    assert time.monotonic() - start < 2
    assert not caught.offer(suspect(8))
    assert counted("guard_suspects_dropped_total", reason="closing") == before + 8


def test_many_threads_may_offer(shelf: Shelf) -> None:
    """What several threads offer at once is kept once each."""
    caught = opened(shelf, count=1000, size=1 << 24)
    parts = [suspects(400)[start::4] for start in range(4)]

    def offer(part: list[object]) -> None:
        for one in part:
            assert caught.offer(one)  # type: ignore[arg-type]

    threads = [threading.Thread(target=offer, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    caught.close()
    assert sorted(one.id for one in shelf.kept) == [one.id for one in suspects(400)]


def test_an_outage_is_told_once_and_does_not_hammer_the_store(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    """Tries come ever more seldom; each outage has one line at its start and one at its end."""
    caught = opened(shelf)
    with caplog.at_level(logging.WARNING):
        for outage in (1, 2):
            asked, shelf.broken = shelf.asked, AWAY
            caught.offer(suspect(outage))
            until(lambda: counted("guard_suspects_up", store="sqlite") == 0)
            time.sleep(0.5)
            assert 3 <= shelf.asked - asked <= 5
            shelf.broken = None
            until(lambda n=outage: len(shelf.kept) == 2 * n - 1)  # type: ignore[misc]
            caught.offer(suspect(outage + 10))
            until(lambda n=outage: len(shelf.kept) == 2 * n)  # type: ignore[misc]
    caught.close()
    assert [one.levelname for one in caplog.records] == ["ERROR", "WARNING"] * 2


def test_a_batch_that_cannot_be_finished_is_counted_and_the_next_one_tried(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong on the writer's thread, it goes on."""
    before = counted("guard_suspects_dropped_total", reason="error")
    caught = opened(shelf)
    with monkeypatch.context() as patch:
        patch.setattr(shelf, "near", lambda _image: 1 / 0)
        for one in suspects(3):
            caught.offer(one)
        until(lambda: counted("guard_suspects_dropped_total", reason="error") == before + 3)
    until(lambda: caught.waiting == 0)
    caught.offer(suspect(9))
    caught.close()
    assert [one.id for one in shelf.kept] == [suspect(9).id]


def test_room_is_given_back(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was kept takes no room any more: ten times as much as fits goes through in turns."""
    monkeypatch.setattr(capture, "LINGER_SECONDS", 0.01)
    caught = opened(shelf, count=4, size=1 << 18)
    for turn in range(10):
        assert all(caught.offer(suspect(turn * 4 + number, side=64)) for number in range(4))
        until(lambda: not caught.waiting)
    caught.close()
    assert len(shelf.kept) == 40
    assert counted("guard_suspects_up", store="sqlite") == 1


def test_what_hangs_for_good_is_counted_at_the_end(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that never answers keeps nobody from stopping; the lost ones have a line."""
    before = counted("guard_suspects_dropped_total", reason="closing")
    shelf.hanging.clear()
    caught = opened(shelf, drain=0.1)
    caught.offer(suspect(1))
    until(lambda: shelf.asked == 1)
    caught.close()
    shelf.hanging.set()
    assert counted("guard_suspects_dropped_total", reason="closing") == before + 1
    assert "1 suspects are lost" in caplog.text
