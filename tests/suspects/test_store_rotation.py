"""Rotations that are interrupted, that others work through, that a backup must not survive."""

import threading
from pathlib import Path
from typing import Any

import pytest

from guard.errors import StoreError
from guard.suspects import suspect_store
from guard.suspects.record import Filter
from guard.suspects.suspect_store import SuspectStore
from tests.suspects.samples import same, suspect
from tests.suspects.stores import Open

STEPS = {
    "once the key is made": ("_index", "use", 0),
    "once the fence is set": ("_index", "rewrap", 0),
    "with some keys wrapped": ("_index", "rewrap", 1),
    "with all keys wrapped": ("_keys", "forget", 0),
    "with the old key gone": ("_index", "mark", 0),
}


class CrashError(Exception):
    """The process ends here."""


def crash(store: SuspectStore, part: str, method: str, after: int) -> None:
    """Let a method of a part of this store end everything at its call number `after`."""
    real, calls = getattr(getattr(store, part), method), iter(range(100))

    def broken(*values: Any, **named: Any) -> Any:
        if next(calls) >= after:
            raise CrashError
        return real(*values, **named)

    setattr(getattr(store, part), method, broken)


@pytest.mark.parametrize("when", STEPS)
def test_an_interrupted_rotation_loses_nothing_and_is_made_good(
    kind: Open, place: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Wherever it ends, everything opens after a restart, and the rotation is still due."""
    monkeypatch.setattr(suspect_store, "BATCH", 2)
    store = kind(place)
    given = [suspect(store, seed) for seed in range(6)]
    store.put(given)
    store.erase(Filter(ids=[given[5].id]))
    crash(store, *STEPS[when])
    with pytest.raises(CrashError):
        store.rotate()
    store.close()
    store = kind(place)
    assert list(store.verify()) == []
    assert store.erased_since() is not None
    late = suspect(store, 10)
    store.put([late])
    before = store._index.sealed(late.id)[1].kek
    assert store.rotate() == 6
    assert store._index.sealed(late.id)[1].kek > before
    assert len(store._keys.load().keys) == 1
    assert store.erased_since() is None
    assert all(same(store.get(one.id), one) for one in (*given[:5], late))
    store.close()


def test_who_has_the_store_open_meanwhile_goes_on(kind: Open, place: Path) -> None:
    """Another process's store, opened before a rotation, reads and writes after it."""
    store, other = kind(place), kind(place)
    one, two = suspect(store, 1), suspect(store, 2)
    store.put([one])
    store.rotate()
    store.rotate()
    assert same(other.get(one.id), one)
    store.rotate()
    other.put([two])
    assert same(store.get(two.id), two)
    assert other._index.sealed(two.id)[1].kek == 4
    for each in (store, other):
        each.close()


def test_an_old_copy_of_the_keys_writes_nothing(kind: Open, place: Path) -> None:
    """A ring from before a rotation is refused, at the start and later."""
    store = kind(place)
    one = suspect(store, 1)
    store.put([one])
    path = next((place / "keys").glob("*.key"))
    old = path.read_bytes()
    store.rotate()
    path.write_bytes(old)
    other = suspect(store, 2)
    store._ring = store._keys.load()
    with pytest.raises(StoreError, match="old copy of the keys"):
        store.put([other])
    with pytest.raises(StoreError, match="key-encryption key 2"):
        store.get(one.id)
    store.close()
    with pytest.raises(StoreError, match="old copy of the keys"):
        kind(place)


def test_other_keys_are_refused(kind: Open, place: Path) -> None:
    """Keys of another store open nothing here, and nothing is written with them."""
    store = kind(place)
    store.put([suspect(store, 1)])
    store.close()
    path = next((place / "keys").glob("*.key"))
    right = path.read_bytes()
    path.unlink()
    with pytest.raises(StoreError, match="restore it"):
        kind(place)
    assert not path.exists()
    kind(place / "elsewhere").close()
    path.write_bytes(next((place / "elsewhere" / "keys").glob("*.key")).read_bytes())
    path.chmod(0o600)
    with pytest.raises(StoreError, match="other keys"):
        kind(place)
    path.write_bytes(right)
    store = kind(place)
    assert list(store.verify()) == []
    store.close()


def test_a_rotation_between_the_keys_and_the_index_is_noticed(
    kind: Open, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who reads the keys just before and the index just after one reads the keys once more."""
    store, other = kind(place), kind(place)
    store.put([suspect(store, 1)])
    late = [store._keys.load()]
    other.rotate()
    load = store._keys.load
    monkeypatch.setattr(store._keys, "load", lambda: late.pop() if late else load())
    store.put([suspect(store, 2)])
    assert not late
    assert store.counts().total == 2


def test_rotations_under_load_disturb_nobody(kind: Open, place: Path) -> None:
    """Readers, a writer and an eraser in two stores: no error, nothing lost, nothing unreadable."""
    stores = (kind(place), kind(place))
    given = [suspect(stores[0], seed) for seed in range(40)]
    stores[0].put(given)
    stop, failed, reads = threading.Event(), [], [0]
    put = []

    def read(store: SuspectStore) -> None:
        while not stop.is_set():
            for one in given[:20]:
                assert same(store.get(one.id), one)
                reads[0] += 1

    def write(store: SuspectStore) -> None:
        seed = 1000
        while not stop.is_set():
            batch = [suspect(store, seed + n) for n in range(3)]
            store.put(batch)
            put.extend(batch)
            seed += 3

    def erase(store: SuspectStore) -> None:
        for one in given[20:]:
            store.erase(Filter(ids=[one.id]))

    def run(work: Any, store: SuspectStore) -> None:
        try:
            work(store)
        except BaseException as error:
            failed.append(error)

    works = [(work, store) for work in (read, write, erase) for store in stores]
    works[3] = (read, stores[1])  # one writer is enough: ids would be put twice
    threads = [threading.Thread(target=run, args=work) for work in works]
    for thread in threads:
        thread.start()
    for _ in range(20):
        stores[0].rotate()
    stop.set()
    for thread in threads:
        thread.join()
    assert failed == []
    assert reads[0] > 40
    assert list(stores[1].verify()) == []
    assert {row.id for row in stores[1].rows(limit=10_000).rows} == {
        one.id for one in (*given[:20], *put)
    }
    for store in stores:
        store.close()
