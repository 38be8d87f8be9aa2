"""The embedded store on a damaged, foreign or full disk: a clear error, nothing overwritten."""

import os
import resource
import sqlite3
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from guard.errors import StoreError
from guard.suspects.record import Filter
from guard.suspects.suspect_store import SuspectStore
from tests.suspects.samples import same, suspect
from tests.suspects.stores import embedded

INDEX = "kept/index.sqlite3"


def filled(place: Path, count: int = 30) -> list[str]:
    """A closed store with so many suspects; their ids."""
    store = embedded(place)
    given = [suspect(store, seed) for seed in range(count)]
    store.put(given)
    store.close()
    return [one.id for one in given]


def everything(place: Path) -> dict[str, bytes]:
    """Every record there is, and the keys."""
    files = [*(place / "kept" / "records").iterdir(), *(place / "keys").iterdir()]
    return {str(path): path.read_bytes() for path in files if path.is_file()}


def cut(path: Path) -> None:
    """Half of it is gone."""
    os.truncate(path, path.stat().st_size // 2)


def spoil(path: Path) -> None:
    """Every page after the first is noise."""
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))


def foreign(path: Path) -> None:
    """Somebody else's database."""
    path.unlink()
    other = apsw.Connection(str(path))
    other.execute("CREATE TABLE theirs (a)")
    other.close()


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (Path.unlink, "missing or empty"),
    "empty": (lambda path: path.write_bytes(b""), "missing or empty"),
    "no database": (lambda path: path.write_bytes(b"x" * 9000), "damaged"),
    "cut": (cut, "damaged"),
    "noise": (spoil, "damaged"),
    "another's": (foreign, "is no index of suspects"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_index_is_an_error_and_nothing_is_overwritten(place: Path, how: str) -> None:
    """Whatever happened to it, records and keys stay as they are; a backup brings all back."""
    ids = filled(place)
    index = place / INDEX
    backup, before = index.read_bytes(), everything(place)
    damage, said = DAMAGE[how]
    damage(index)
    with pytest.raises(StoreError, match=said):
        embedded(place)
    assert everything(place) == before
    for leftover in place.glob(INDEX + "-*"):
        leftover.unlink()
    index.write_bytes(backup)
    store = embedded(place)
    assert {row.id for row in store.rows().rows} == set(ids)
    assert list(store.verify()) == []
    store.close()


def test_a_damaged_index_sweeps_nothing(place: Path) -> None:
    """An index whose rows were lost to damage does not take the records with them."""
    filled(place, 300)
    other = apsw.Connection(str(place / INDEX))
    other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    find = "SELECT rootpage FROM sqlite_master WHERE name LIKE '%autoindex_suspects_1'"
    ((root,),) = list(other.execute(find))
    other.close()
    with (place / INDEX).open("r+b") as file:
        file.seek(4096 * (root - 1))
        file.write(b"\x0a" + bytes(6) + b"\x10" + bytes(4088))  # an empty leaf: all ids are gone
    before = everything(place)
    with pytest.raises(StoreError, match="damaged"):
        embedded(place)
    assert everything(place) == before


def test_a_missing_key_file_makes_no_new_one(place: Path) -> None:
    """Without its keys the store does not open, and no other key takes their place."""
    filled(place)
    key = place / "keys" / "suspects.key"
    raw = key.read_bytes()
    key.unlink()
    with pytest.raises(StoreError, match=r"suspects\.key.*restore it"):
        embedded(place)
    assert not key.exists()
    key.write_bytes(raw)
    with pytest.raises(StoreError, match="chmod 600"):
        embedded(place)


def test_an_index_of_a_newer_guard_is_refused(place: Path) -> None:
    """What a later layout means is not guessed."""
    filled(place)
    other = apsw.Connection(str(place / INDEX))
    other.execute("UPDATE meta SET value = '2' WHERE name = 'version'")
    other.close()
    with pytest.raises(StoreError, match="layout 2, not 1"):
        embedded(place)


def test_nothing_but_the_owner_can_look_in(place: Path) -> None:
    """Folders 0700, files 0600, whatever the umask."""
    old = os.umask(0)
    try:
        filled(place, 2)
    finally:
        os.umask(old)
    for path in (place / "kept").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert (place / "kept").stat().st_mode & 0o777 == 0o700


def test_a_link_in_the_place_of_the_index_is_not_followed(place: Path) -> None:
    """Nobody makes guard write into another file."""
    filled(place)
    index = place / INDEX
    index.rename(place / "elsewhere")
    index.symlink_to(place / "elsewhere")
    with pytest.raises(StoreError):
        embedded(place)


def test_the_sqlite_in_use_has_no_wal_reset_bug() -> None:
    """Fixed in 3.51.3; the standard library's may be older, and is not used."""
    assert tuple(map(int, apsw.sqlite_lib_version().split("."))) >= (3, 51, 3)
    assert sqlite3.sqlite_version  # here for comparison only


def test_the_index_commits_to_the_disk_and_wipes_what_it_deletes(place: Path) -> None:
    """FULL, not NORMAL, which loses acknowledged rows in a power cut; secure_delete; no mmap."""
    store = embedded(place)
    database = store._index._database
    for session in (database.read(), database.write()):
        with session as one:
            assert one.all("PRAGMA synchronous") == [(2,)]
            assert one.all("PRAGMA secure_delete") == [(1,)]
            assert one.all("PRAGMA journal_mode") == [("wal",)]
            assert one.all("PRAGMA mmap_size") in ([], [(0,)])
            assert one.all("PRAGMA temp_store") == [(2,)]
    store.close()


def test_what_is_erased_is_in_no_byte_of_the_folder(place: Path) -> None:
    """Not its id, its client, its wrapped key, its reviewer: in database, log and records."""
    store = embedded(place)
    keep, gone = suspect(store, 1), suspect(store, 2, who="bob", trace="f" * 32)
    store.put([keep, gone])
    wrapped = store._index.sealed(gone.id)[1].wrapped
    assert found(place, gone.id.encode()) and found(place, wrapped)
    store.erase(Filter(ids=[gone.id]))
    for part in (gone.id.encode(), gone.client.encode(), wrapped):
        assert not found(place, part)
    assert found(place, keep.id.encode())
    store.close()


def found(place: Path, part: bytes) -> bool:
    """Whether these bytes are in the name or the content of any file."""
    files = [path for path in place.rglob("*") if path.is_file()]
    return any(part in path.read_bytes() or part in path.name.encode() for path in files)


def test_a_full_disk_is_an_error_and_then_forgotten(place: Path) -> None:
    """A write that does not fit keeps nothing of it; what was kept stays; later all goes on."""
    store = embedded(place)
    first, second = suspect(store, 1), suspect(store, 2)
    store.put([first])
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, limit[1]))  # of every file: EFBIG, as ENOSPC
    try:
        with pytest.raises(StoreError, match="could not be written: File too large"):
            store.put([second])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert same(store.get(first.id), first)
    assert store.counts().total == 1
    assert len(list((place / "kept" / "records").iterdir())) == 1
    store.put([second])
    assert same(store.get(second.id), second)
    store.close()


def test_records_that_cannot_be_deleted_are_swept_later(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An erasure is done once its keys are gone; the file goes with the next upkeep."""
    store = embedded(place)
    one = suspect(store, 1)
    store.put([one])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        assert store.erase(Filter(ids=[one.id])) == 1
    assert len(list((place / "kept" / "records").iterdir())) == 1
    store.upkeep(keep_seconds=None, quota_bytes=None)
    assert list((place / "kept" / "records").iterdir()) == []
    store.close()


def refuse(_path: Path, missing_ok: bool = False) -> None:
    """A disk that does not let go."""
    raise OSError(5, "Input/output error")


def test_a_drafts_leftovers_are_swept_at_the_start(place: Path) -> None:
    """Half a record, and a whole one that no index knows, are gone after the next start."""
    filled(place, 3)
    records = place / "kept" / "records"
    (records / ".draft-abc-12").write_bytes(b"half")
    (records / "abc-34").write_bytes(b"whole")
    store = embedded(place)
    assert len(list(records.iterdir())) == 3
    assert list(store.verify()) == []
    store.close()


def test_a_failed_commit_leaves_its_record_to_the_sweep(place: Path) -> None:
    """It is not known whether a commit that failed was made: the record stays until that is."""
    store: SuspectStore = embedded(place)
    one = suspect(store, 1)
    real = store._index.add

    def broken(_entries: object) -> object:
        raise StoreError("no commit")

    store._index.add = broken  # type: ignore[method-assign, assignment]
    with pytest.raises(StoreError, match="no commit"):
        store.put([one])
    records = place / "kept" / "records"
    assert len(list(records.iterdir())) == 1
    store._index.add = real  # type: ignore[method-assign]
    store.upkeep(keep_seconds=None, quota_bytes=None)
    assert list(records.iterdir()) == []
    store.put([one])
    assert same(store.get(one.id), one)
    store.close()
