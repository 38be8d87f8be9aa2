"""Whoever can write the index or the records, but lacks the keys, is found out, in every store."""

import re
from collections.abc import Sequence

import pytest

from guard.errors import StoreError, UnknownSuspectError
from guard.suspects.parts import Value
from guard.suspects.record import Filter, Suspect
from guard.suspects.suspect_store import SuspectStore
from tests.suspects.samples import same, suspect


def write(store: SuspectStore, sql: str, values: Sequence[Value] = ()) -> None:
    """Change the index behind the store's back."""
    with store._index._database.write() as session:
        session.all(sql, values)


def replace(store: SuspectStore, name: str, content: bytes) -> None:
    """Change a sealed record behind the store's back."""
    store._blobs.delete([name])
    store._blobs.write([(name, content)])


def two(store: SuspectStore, **changed: str) -> tuple[Suspect, Suspect]:
    """Two suspects, the second of which may differ in more than its picture."""
    one, other = suspect(store, 1), suspect(store, 2, **changed)
    store.put([one, other])
    return one, other


REGIONS = {
    "mark": (0, "unknown mark"),
    "layout": (4, "unknown mark"),
    "nonce": (5, "altered"),
    "last of the nonce": (16, "altered"),
    "first of the record": (17, "altered"),
    "middle": (500, "altered"),
    "tag": (-1, "altered"),
}


@pytest.mark.parametrize("region", REGIONS)
def test_a_flipped_bit_of_a_record_is_found(store: SuspectStore, region: str) -> None:
    """Wherever it is; the error names the suspect, and the others still open."""
    at, said = REGIONS[region]
    one, other = two(store)
    name = store._index.sealed(one.id)[1].blob
    content = bytearray(store._blobs.read(name) or b"")
    content[at] ^= 1
    replace(store, name, bytes(content))
    with pytest.raises(StoreError, match=f"{one.id}.*{said}"):
        store.get(one.id)
    assert same(store.get(other.id), other)


@pytest.mark.parametrize(
    ("size", "said"), [(0, "cut short"), (32, "cut short"), (33, "altered"), (-1, "altered")]
)
def test_a_record_that_was_cut_is_found(store: SuspectStore, size: int, said: str) -> None:
    """From nothing at all to one byte too few; one byte too many, too."""
    one, _ = two(store)
    name = store._index.sealed(one.id)[1].blob
    content = store._blobs.read(name) or b""
    for changed in (content[:size], content[:size] if size < 33 else content + b"\0"):
        replace(store, name, changed)
        with pytest.raises(StoreError, match=f"{one.id}.*{said}"):
            store.get(one.id)


def test_a_missing_record_is_told_from_an_erased_suspect(store: SuspectStore) -> None:
    """A record that is away is damage, not "no such suspect"."""
    one, _ = two(store)
    store._blobs.delete([store._index.sealed(one.id)[1].blob])
    with pytest.raises(StoreError, match=f"{one.id}.*missing"):
        store.get(one.id)
    assert re.search(f"{one.id}.*missing", next(store.verify()))


@pytest.mark.parametrize("at", [0, 11, 12, 40, -1])
def test_a_flipped_bit_of_a_wrapped_key_is_found(store: SuspectStore, at: int) -> None:
    """In its nonce, its text or its tag."""
    one, other = two(store)
    wrapped = bytearray(store._index.sealed(one.id)[1].wrapped)
    wrapped[at] ^= 1
    write(store, "UPDATE sealed SET wrapped = ? WHERE blob LIKE ?", (bytes(wrapped), f"{one.id}%"))
    with pytest.raises(StoreError, match=f"{one.id}.*its key"):
        store.get(one.id)
    assert same(store.get(other.id), other)


def test_swapped_records_are_found(store: SuspectStore) -> None:
    """A record under another's name opens under neither."""
    one, other = two(store)
    first, second = (store._index.sealed(each.id)[1].blob for each in (one, other))
    contents = [store._blobs.read(name) or b"" for name in (first, second)]
    replace(store, first, contents[1])
    replace(store, second, contents[0])
    for each in (one, other):
        with pytest.raises(StoreError, match=f"{each.id}.*altered, or is another's"):
            store.get(each.id)


@pytest.mark.parametrize("columns", [("wrapped",), ("wrapped", "blob"), ("blob",)])
def test_swapped_keys_are_found(store: SuspectStore, columns: tuple[str, ...]) -> None:
    """One's key, record or both in the other's row: nothing opens as what it is not."""
    one, other = two(store)
    (_, first), (_, second) = store._index.sealed(one.id), store._index.sealed(other.id)
    for mine, theirs in ((first, second), (second, first)):
        sets = ", ".join(f"{name} = ?" for name in columns)
        values = [getattr(theirs, name) for name in columns]
        swap = f"UPDATE sealed SET {sets}, near = 'x' WHERE blob = ? AND near <> 'x'"  # noqa: S608
        write(store, swap, (*values, mine.blob))
        if "blob" in columns:
            break
    with pytest.raises(StoreError, match=one.id):
        store.get(one.id)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("tenant", "other", "its key"),
        ("id", "another", "its key"),
        ("model", "other", "another model"),
        ("pack", "other", "another pack"),
        ("client", "other", "another client"),
        ("taken", 5.0, "another time"),
        ("decision", 0, "another decision"),
        ("predicted", 99, "another class"),
        ("p_value", 0.5, "another p-value"),
        ("alarms", "[]", "another alarms"),
        ("alarms", "[", "its row in the index is damaged"),
        ("alarms", "7", "its row in the index is damaged"),
        ("decision", 77, "its row in the index is damaged"),
    ],
)
def test_a_row_that_disagrees_with_its_record_is_found(
    store: SuspectStore, column: str, value: Value, said: str
) -> None:
    """Moved to another tenant or id it does not open; any other fact is compared and named."""
    one, _ = two(store)
    change = f"UPDATE suspects SET {column} = ? WHERE id = ?"  # noqa: S608
    write(store, change, (value, one.id))
    asked = str(value) if column == "id" else one.id
    with pytest.raises(StoreError, match=said):
        store.get(asked)


def test_another_tenant_s_record_does_not_open(store: SuspectStore) -> None:
    """A tenant's sealed record and key, put into another tenant's row, stay shut."""
    mine, theirs = two(store, tenant="theirs")
    _, sealed = store._index.sealed(theirs.id)
    write(store, "DELETE FROM sealed WHERE blob = ?", (sealed.blob,))
    write(store, "UPDATE sealed SET blob = ?, wrapped = ? WHERE blob LIKE ?",
          (sealed.blob, sealed.wrapped, f"{mine.id}%"))  # fmt: skip
    with pytest.raises(StoreError, match=mine.id):
        store.get(mine.id)


def test_a_row_without_its_key_is_damage(store: SuspectStore) -> None:
    """Half a row is neither a suspect nor an erased one."""
    one, _ = two(store)
    write(store, "DELETE FROM sealed WHERE blob LIKE ?", (f"{one.id}%",))
    with pytest.raises(StoreError, match=f"{one.id}.*lacks its key"):
        store.get(one.id)


def test_a_key_number_that_never_was_is_named(store: SuspectStore) -> None:
    """A record under a key that the ring lacks says which; a rotation passes over it."""
    one, other = two(store)
    write(store, "UPDATE sealed SET kek = 77 WHERE blob LIKE ?", (f"{one.id}%",))
    with pytest.raises(StoreError, match=f"{one.id}.*key 77"):
        store.get(one.id)
    write(store, "UPDATE sealed SET kek = 0 WHERE blob LIKE ?", (f"{one.id}%",))
    assert store.rotate() == 1
    assert same(store.get(other.id), other)
    assert len(list(store.verify())) == 1


def test_no_error_speaks_of_what_is_inside(store: SuspectStore) -> None:
    """However a record is broken, its error has no key, no pixel and no client's name."""
    one = suspect(store, 1, who="canary-client")
    store.put([one])
    name = store._index.sealed(one.id)[1].blob
    replace(store, name, b"GSUS\1" + bytes(40))
    with pytest.raises(StoreError) as caught:
        store.get(one.id)
    told = f"{caught.value!r} {caught.value.__cause__!r}"
    ring = store._keys.load()
    assert "canary" not in told
    for secret in (ring.index, *(key.secret for key in ring.keys.values())):
        assert secret.hex() not in told
        assert secret.hex() not in repr(ring)


def test_erasing_is_still_possible_where_records_are_broken(store: SuspectStore) -> None:
    """What cannot be opened can be erased."""
    one, other = two(store)
    store._blobs.delete([store._index.sealed(one.id)[1].blob])
    write(store, "UPDATE sealed SET near = '[' WHERE blob LIKE ?", (f"{one.id}%",))
    assert store.similar(one.id) == []
    assert store.erase(Filter(ids=[one.id])) == 1
    with pytest.raises(UnknownSuspectError):
        store.get(one.id)
    assert same(store.get(other.id), other)
