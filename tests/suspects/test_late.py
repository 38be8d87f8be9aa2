"""A store that opens late: errors until it does, everything passed on afterwards."""

import inspect

import pytest

from guard.errors import StoreError
from guard.suspects import late
from guard.suspects.late import LateStore
from guard.suspects.store import Store
from tests.suspects.shelf import AWAY, Shelf, suspects


def test_it_opens_when_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """The opener's own error until it works, asked again at most once in a while."""
    shelf, tries = Shelf(), 0

    def opening() -> Store:
        nonlocal tries
        tries += 1
        if tries < 2:
            raise AWAY
        return shelf

    store = LateStore(opening)
    assert not store.ready
    with pytest.raises(StoreError, match="the disk is full"):
        store.put(suspects(1))
    with pytest.raises(StoreError, match="the disk is full"):
        store.pseudonym("alice")
    assert tries == 1
    store._again = 0.0
    store.put(suspects(2))
    assert (store.ready, len(shelf.kept), tries) == (True, 2, 2)
    assert store.near(suspects(1)[0].image) == (0,)
    store.close()
    assert shelf.closed


def test_it_is_a_store_in_every_method() -> None:
    """Each method of the protocol is there, takes the same, and passes on to its own name."""
    methods = [name for name, _ in inspect.getmembers(Store, inspect.isfunction) if name[0] != "_"]
    assert "erased_since" in methods
    for name in methods:
        ours, wanted = getattr(LateStore, name), getattr(Store, name)
        assert inspect.signature(ours) == inspect.signature(wanted), name
        if name != "close":
            assert f"self.opened().{name}(" in inspect.getsource(ours) or (
                f"store.{name}(" in inspect.getsource(ours)
            )


def test_after_closing_it_stays_closed() -> None:
    """Nobody opens a store that was closed before it was there."""
    store = LateStore(Shelf)
    store.close()
    with pytest.raises(StoreError):
        store.counts()
    assert late.AGAIN_SECONDS > 0
