"""Several threads and processes with one store."""

import multiprocessing
import threading
from pathlib import Path

import pytest

from guard.suspects.record import Filter
from guard.suspects.suspect_store import SuspectStore
from tests.suspects.samples import same, suspect
from tests.suspects.stores import KINDS, Open


def test_the_same_pictures_at_once_are_kept_once(kind: Open, place: Path) -> None:
    """Two stores that put the same batches: each suspect once, every sending counted."""
    stores = (kind(place), kind(place))
    batches = [[suspect(stores[0], seed + n) for n in range(4)] for seed in range(0, 40, 4)]
    barrier = threading.Barrier(4)
    failed = []

    def put(store: SuspectStore) -> None:
        barrier.wait()
        try:
            for batch in batches:
                store.put(batch)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=put, args=(store,)) for store in stores * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    rows = stores[0].rows(limit=100).rows
    assert len(rows) == 40
    assert {row.seen for row in rows} == {4}
    with stores[0]._blobs.leftovers() as names:
        assert len(list(names)) == 40
    assert list(stores[1].verify()) == []
    for store in stores:
        store.close()


def test_what_is_erased_while_it_is_sent_again_is_never_half_there(store: SuspectStore) -> None:
    """Erasures against sendings of the same pictures: each suspect opens, or is not there."""
    given = [suspect(store, seed) for seed in range(5)]
    failed = []

    def put() -> None:
        try:
            for _ in range(25):
                store.put(given)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=put)
    thread.start()
    while thread.is_alive():
        store.erase(Filter(ids=[one.id for one in given]))
    thread.join()
    assert failed == []
    assert list(store.verify()) == []
    store.put(given)
    assert store.counts().total == 5


def work(kind: str, place: Path, number: int) -> None:
    """One process: its own suspects, and those that all share."""
    store = KINDS[kind](place)
    for seed in range(10):
        store.put([suspect(store, seed), suspect(store, 1000 * number + seed)])
    store.close()


def test_processes_share_a_store(kind: Open, place: Path) -> None:
    """Two processes at once, one of which makes the store: nothing is lost or doubled."""
    name = next(name for name, one in KINDS.items() if one is kind)
    context = multiprocessing.get_context("spawn")  # obstore survives no fork
    processes = [context.Process(target=work, args=(name, place, one)) for one in (1, 2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    store = kind(place)
    assert store.counts().total == 30
    assert sum(row.seen for row in store.rows(limit=100).rows) == 40
    assert list(store.verify()) == []
    store.close()


def test_what_was_erased_just_before_it_is_sent_again_is_kept(
    store: SuspectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thought to be known, and gone at the commit: it is sealed and kept after all, once."""
    one, other = suspect(store, 1), suspect(store, 2)
    store.put([other])
    monkeypatch.setattr(store._index, "known", lambda ids: set(ids))
    store.put([one, other])
    assert same(store.get(one.id), one)
    assert (store.row(one.id).seen, store.row(other.id).seen) == (1, 2)
    with store._blobs.leftovers() as names:
        assert len(list(names)) == 2
