"""Backups: what they bring back, and that they do not bring back what was erased."""

import shutil
import time
from pathlib import Path

import pytest

from guard.errors import StoreError, UnknownSuspectError
from guard.suspects.keeper import Keeper
from guard.suspects.opening import open_keys, open_store
from guard.suspects.record import Filter, Suspect
from guard.suspects.suspect_store import SuspectStore
from tests.suspects.samples import same, suspect
from tests.suspects.stores import embedded

SECONDS = 60.0  # within which an erased suspect must be unreadable everywhere


def saved(store: SuspectStore, place: Path, name: str) -> Path:
    """A backup: the index first, then the records; never the keys."""
    folder = place / name
    (folder / "records").mkdir(parents=True)
    store.backup(folder / "index.sqlite3")
    for record in (place / "kept" / "records").iterdir():
        shutil.copy(record, folder / "records")
    return folder


def restored(place: Path, backup: Path, name: str) -> SuspectStore:
    """The store of a backup, with the keys as they are now."""
    shutil.copytree(backup, place / name)
    return open_store(open_keys(str(place / "keys" / "suspects.key")), folder=str(place / name))


def readable(place: Path, backup: Path, one: Suspect, name: str) -> bool:
    """Whether this suspect can be had from a backup."""
    try:
        store = restored(place, backup, name)
    except StoreError:
        return False
    try:
        return same(store.get(one.id), one)
    except (StoreError, UnknownSuspectError):
        return False
    finally:
        store.close()


def test_a_backup_brings_everything_back(place: Path) -> None:
    """Index and records copied while the store is open; what came later is simply not there."""
    store = embedded(place)
    given = [suspect(store, seed) for seed in range(5)]
    store.put(given)
    backup = saved(store, place, "backup")
    late = suspect(store, 9)
    store.put([late])
    shutil.copy(place / "kept" / "records" / store._index.sealed(late.id)[1].blob,
                backup / "records")  # fmt: skip
    again = restored(place, backup, "again")
    assert all(same(again.get(one.id), one) for one in given)
    assert again.counts().total == 5
    assert len(list((place / "again" / "records").iterdir())) == 5
    again.close()
    store.close()


def test_a_backup_overwrites_nothing(place: Path) -> None:
    """A file that is there stays as it is."""
    store = embedded(place)
    (place / "there").write_bytes(b"mine")
    with pytest.raises(StoreError, match="File exists"):
        store.backup(place / "there")
    assert (place / "there").read_bytes() == b"mine"
    store.close()


def test_an_erased_suspect_is_unreadable_from_a_backup_within_a_minute(place: Path) -> None:
    """The drill: back up, erase, wait for the gateway's own upkeep, restore, look.

    Before the rotation the backup does open it: that is what the rotation is for.
    """
    store = embedded(place)
    given = [suspect(store, seed, who=("ada", "bob")[seed % 2]) for seed in range(10)]
    gone, kept = given[1::2], given[::2]
    store.put(given)
    before = saved(store, place, "before")
    begun = time.monotonic()
    assert store.erase(Filter(client=gone[0].client)) == 5
    assert readable(place, before, gone[0], "too early")
    keeper = Keeper(store, keep_seconds=1e9, quota_bytes=1 << 30, rotate=True, every=0.2)
    keeper.start()
    while store.erased_since() is not None and time.monotonic() < begun + SECONDS:
        time.sleep(0.05)
    keeper.close()
    assert time.monotonic() < begun + SECONDS
    assert not any(readable(place, before, one, f"late {one.id}") for one in given)
    after = saved(store, place, "after")
    assert all(same(store.get(one.id), one) for one in kept)
    # The old copies of the records are good with a new index, but for what was erased.
    for record in (before / "records").iterdir():
        shutil.copy(record, after / "records")
    again = restored(place, after, "at last")
    assert all(same(again.get(one.id), one) for one in kept)
    for one in gone:
        with pytest.raises(UnknownSuspectError):
            again.get(one.id)
    again.close()
    store.close()


def test_an_index_from_before_a_rotation_says_what_is_wrong(place: Path) -> None:
    """Whoever restores it is told that its key is gone, not that it is damaged."""
    store = embedded(place)
    store.put([suspect(store, 1)])
    before = saved(store, place, "before")
    store.rotate()
    store.close()
    with pytest.raises(StoreError, match="from before the last rotation: its key 1 was destroyed"):
        restored(place, before, "again")


def test_without_the_index_the_records_and_the_keys_open_nothing(place: Path) -> None:
    """Sealed records beside a key ring, but without the wrapped keys, are noise."""
    store = embedded(place)
    store.put([suspect(store, 1)])
    store.close()
    (place / "kept" / "index.sqlite3").unlink()
    with pytest.raises(StoreError, match="restore the index"):
        embedded(place)
