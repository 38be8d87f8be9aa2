"""What every store of suspects must do."""

import dataclasses
from pathlib import Path

import pytest

from guard.errors import UnknownSuspectError
from guard.suspects.record import Filter
from guard.suspects.suspect_store import SuspectStore
from tests.suspects.samples import picture, same, suspect
from tests.suspects.stores import Open


def test_a_filter_is_a_value() -> None:
    """A filter cannot be changed after a page of it was shown."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Filter().model = "other"  # type: ignore[misc]


def test_what_is_put_comes_back_bit_for_bit(store: SuspectStore) -> None:
    """Every field and every float of a suspect survives, with and without an upstream."""
    given = [suspect(store, seed) for seed in range(4)]
    store.put(given)
    assert all(same(store.get(one.id), one) for one in given)


def test_what_is_put_is_there_for_whoever_opens_it_next(kind: Open, place: Path) -> None:
    """A store that is closed and opened again has everything."""
    first = kind(place)
    one = suspect(first, 1)
    first.put([one])
    first.close()
    again = kind(place)
    assert same(again.get(one.id), one)
    assert suspect(again, 1).id == one.id
    again.close()


def test_the_same_picture_of_the_same_client_is_only_seen_again(store: SuspectStore) -> None:
    """Sent again alone, in a batch and twice in one batch: one suspect, counted."""
    one, two = suspect(store, 1), suspect(store, 2)
    store.put([one])
    store.put([one, two, one])
    assert store.row(one.id).seen == 3
    assert store.row(two.id).seen == 1
    assert store.counts().total == 2


def test_ids_tell_apart_who_sent_what_to_whom(store: SuspectStore) -> None:
    """Another client, tenant, model, pack, picture or shape is another suspect."""
    ids = {
        suspect(store, 1, **changed).id
        for changed in (
            {},
            {"client": store.pseudonym("bob")},
            {"tenant": "t"},
            {"model": "t"},
            {"pack": "t"},
            {"image": picture(2)},
            {"image": picture(1).reshape(3, 8, 32)},
        )
    }
    assert len(ids) == 7
    assert all(len(one) >= 26 and one.isalnum() and one == one.lower() for one in ids)


def test_a_suspect_that_never_was_is_unknown(store: SuspectStore) -> None:
    """Nothing is made up for an id that is not there."""
    for ask in (store.get, store.row, store.similar):
        with pytest.raises(UnknownSuspectError):
            ask("nobody")
