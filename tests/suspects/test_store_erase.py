"""What leaves a store: by request, by age, by quota; and the rotation after it."""

from pathlib import Path

import pytest

from guard.errors import UnknownSuspectError
from guard.suspects.record import Filter, Review
from guard.suspects.suspect_store import SuspectStore
from tests.suspects.samples import same, suspect
from tests.suspects.stores import Open


def blobs(store: SuspectStore) -> list[str]:
    """Names of all sealed records there are."""
    with store._blobs.leftovers() as names:
        return sorted(names)


def test_what_is_erased_is_nowhere(store: SuspectStore) -> None:
    """Row, key, record, reviews, likeness and claims are gone; the others are as before."""
    given = [suspect(store, seed, image=None or suspect(store, 1).image, model=f"m{seed}")
             for seed in range(4)]  # fmt: skip
    store.put(given)
    store.review([given[0].id], Review("ann", "benign", 1.0))
    before = blobs(store)
    assert len(store.similar(given[1].id)) == 3
    assert store.erase(Filter(ids=[given[0].id])) == 1
    for ask in (store.get, store.row, store.similar):
        with pytest.raises(UnknownSuspectError):
            ask(given[0].id)
    left = blobs(store)
    assert len(left) == 3
    assert set(left) < set(before)
    assert len(store.similar(given[1].id)) == 2
    assert store.undo("ann") == []
    assert all(same(store.get(one.id), one) for one in given[1:])


@pytest.mark.parametrize("by", ["client", "tenant", "age", "ids", "model"])
def test_erasure_by_every_ground(store: SuspectStore, by: str) -> None:
    """Exactly those that are meant go, however the request says it."""
    given = [
        suspect(store, seed, who=f"c{seed % 2}", tenant=f"t{seed % 2}", model=f"m{seed % 2}")
        for seed in range(8)
    ]
    store.put(given)
    middle = given[4].taken
    wanted, gone = {
        "client": (Filter(client=given[1].client), given[1::2]),
        "tenant": (Filter(tenant="t1"), given[1::2]),
        "model": (Filter(model="m1"), given[1::2]),
        "age": (Filter(taken_before=middle), given[:4]),
        "ids": (Filter(ids=[given[2].id, "nobody"]), given[2:3]),
    }[by]
    assert store.erase(wanted) == len(gone)
    assert {row.id for row in store.rows().rows} == {one.id for one in given} - {
        one.id for one in gone
    }
    assert len(blobs(store)) == 8 - len(gone)


def test_nobody_erases_all_by_accident(store: SuspectStore) -> None:
    """A filter that leaves everything out is refused."""
    store.put([suspect(store, 1)])
    with pytest.raises(ValueError, match="accident"):
        store.erase(Filter())
    assert store.erase(Filter(ids=[])) == 0
    assert store.counts().total == 1


def test_what_was_erased_can_be_kept_again(store: SuspectStore) -> None:
    """The same picture, sent again after its erasure, is a new suspect."""
    one = suspect(store, 1)
    store.put([one, one])
    store.erase(Filter(ids=[one.id]))
    store.put([one])
    assert store.row(one.id).seen == 1
    assert same(store.get(one.id), one)


def test_age_and_quota(store: SuspectStore) -> None:
    """Too old goes; then the oldest beyond the quota, those that somebody labelled last."""
    given = [suspect(store, seed) for seed in range(10)]
    store.put(given)
    store._clock = lambda: given[2].taken + 100
    assert store.upkeep(keep_seconds=None, quota_bytes=None) == 0
    assert store.upkeep(keep_seconds=100, quota_bytes=None) == 2
    store.review([one.id for one in given[2:4]], Review("ann", "benign", 1.0))
    size = store.row(given[9].id).bytes
    store.upkeep(keep_seconds=None, quota_bytes=5 * size)
    left = {row.id for row in store.rows().rows}
    assert store.counts().bytes <= 5 * size
    assert left >= {given[2].id, given[3].id, given[9].id}
    assert given[4].id not in left
    store.upkeep(keep_seconds=None, quota_bytes=0)
    assert store.counts().total == 0
    assert blobs(store) == []


def test_records_that_no_index_knows_are_swept(kind: Open, place: Path) -> None:
    """What a crash left between record and index is gone after the next start; nothing else."""
    store = kind(place)
    one = suspect(store, 1)
    store.put([one])
    (known,) = blobs(store)
    store._blobs.write([(f"{one.id}-0000", b"left over"), ("other-0", b"left over")])
    assert len(blobs(store)) == 3
    store.sweep()
    assert blobs(store) == [known]
    store.close()


def test_a_due_rotation_is_known_until_it_is_done(kind: Open, place: Path) -> None:
    """The time of the first erasure since the last rotation survives a restart."""
    store = kind(place)
    store.put([suspect(store, seed) for seed in range(3)])
    assert store.erased_since() is None
    for second in (10.0, 20.0):
        store._clock = lambda second=second: second  # type: ignore[misc]
        store.erase(Filter(ids=[store.rows(limit=1).rows[0].id]))
    store.close()
    store = kind(place)
    assert store.erased_since() == 10.0
    assert store.rotate() == 1
    assert store.erased_since() is None
    store.close()


def test_after_a_rotation_everything_opens_and_the_old_key_is_gone(kind: Open, place: Path) -> None:
    """Records stay as they are, their keys are wrapped anew, and only one key is left."""
    store = kind(place)
    given = [suspect(store, seed) for seed in range(5)]
    store.put(given)
    before = blobs(store)
    assert store.rotate() == 5
    assert store.rotate() == 5
    assert blobs(store) == before
    assert list(store._keys.load().keys) == [3]
    later = suspect(store, 9)
    store.put([later])
    assert all(same(store.get(one.id), one) for one in (*given, later))
    store.close()
    store = kind(place)
    assert list(store.verify()) == []
    store.close()
