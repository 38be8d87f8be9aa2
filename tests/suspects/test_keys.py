"""Where the keys of suspects come from: a strict file, a variable, a hook."""

import dataclasses
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from guard.errors import StoreError
from guard.suspects import crypt
from guard.suspects.keys import KeyFile
from guard.suspects.opening import open_keys, open_store
from tests.suspects.samples import same, suspect


def test_a_key_file_is_made_once_and_for_its_owner_alone(place: Path) -> None:
    """Mode 0600 in a folder of 0700, whatever the umask; never made anew."""
    path = place / "keys" / "suspects.key"
    old = os.umask(0)
    try:
        made = KeyFile(path).make()
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert KeyFile(path).make() == made == KeyFile(path).load()
    assert [one.name for one in path.parent.iterdir()] == ["suspects.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_file_that_others_may_touch_is_refused(place: Path, mode: int) -> None:
    """The error names the file and the remedy."""
    path = place / "suspects.key"
    KeyFile(path).make()
    path.chmod(mode)
    with pytest.raises(StoreError, match=f"chmod 600 {path}"):
        KeyFile(path).load()


def test_a_broken_key_file_is_neither_used_nor_replaced(place: Path) -> None:
    """Malformed keys are an error that does not quote them, and the file stays."""
    path = place / "suspects.key"
    KeyFile(path).make()
    raw = path.read_bytes()[:-20]
    path.write_bytes(raw)
    for use in (KeyFile(path).load, KeyFile(path).make, KeyFile(path).forget):
        with pytest.raises(StoreError, match="malformed"):
            use()
    assert path.read_bytes() == raw


def test_rotation_in_a_file_adds_and_then_forgets(place: Path) -> None:
    """One key more, then the newest alone; the forgotten one is in no file of the folder."""
    path = place / "suspects.key"
    keys = KeyFile(path)
    first = keys.make()
    assert list(keys.add(1).keys) == [1, 2]
    assert list(keys.add(1).keys) == [1, 2]
    assert list(keys.forget().keys) == [2]
    assert keys.load().index == first.index
    left = b"".join(one.read_bytes() for one in place.iterdir())
    assert first.keys[1].secret.hex().encode() not in left
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_forgotten_key_s_bytes_are_overwritten(place: Path) -> None:
    """Whoever still has the old file open (or its blocks) reads zeros."""
    path = place / "suspects.key"
    keys = KeyFile(path)
    keys.make()
    keys.add(1)
    with path.open("rb") as old:
        keys.forget()
        assert set(old.read()) == {0}
    assert list(keys.load().keys) == [2]


def test_a_ring_that_is_replaced_while_it_is_read_is_read_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that has the old file open when a rotation overwrites it gets the new ring."""
    keys = KeyFile(place / "suspects.key")
    first = keys.make().current
    real, rotated = os.fdopen, []

    def slowly(descriptor: int, mode: str) -> Any:
        if mode == "rb" and not rotated:
            rotated.append(True)
            keys.add(first)
            keys.forget()
        return real(descriptor, mode)

    monkeypatch.setattr("guard.suspects.keys.os.fdopen", slowly)
    assert list(keys.load().keys) == [first + 1]


def test_only_one_rotates_at_a_time(place: Path) -> None:
    """Eight at once, of different processes' making, end with eight numbers and one key."""
    path = place / "suspects.key"
    KeyFile(path).make()

    def rotate() -> None:
        keys = KeyFile(path)
        with keys.rotating():
            keys.add(keys.load().current)
            keys.forget()

    threads = [threading.Thread(target=rotate) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(KeyFile(path).load().keys) == [9]


def test_keys_from_a_variable_open_what_they_sealed(place: Path) -> None:
    """A store without a key file; a rotation first needs a new key where they are kept."""
    ring = crypt.new_ring()
    environment = {"KEYS": crypt.dump_ring(ring).decode()}
    keys = open_keys(variable="KEYS", environment=environment)
    store = open_store(keys, folder=str(place / "kept"))
    one = suspect(store, 1)
    store.put([one])
    with pytest.raises(StoreError, match="add a key with a number above 1 first"):
        store.rotate()
    both = crypt.with_new_key(ring)
    environment["KEYS"] = crypt.dump_ring(both).decode()
    assert store.rotate() == 1
    environment["KEYS"] = crypt.dump_ring(crypt.newest_only(both)).decode()
    assert same(store.get(one.id), one)
    store.close()
    again = open_store(keys, folder=str(place / "kept"))
    assert same(again.get(one.id), one)
    again.close()


def test_a_variable_that_is_not_set_is_named(place: Path) -> None:
    """No keys, no store, nothing made."""
    with pytest.raises(StoreError, match="KEYS is not set"):
        open_store(open_keys(variable="KEYS", environment={}), folder=str(place / "kept"))


def test_keys_from_a_hook_may_have_any_numbers(place: Path) -> None:
    """Whoever keeps the keys may begin anywhere and skip numbers."""
    ring = crypt.new_ring()
    number = {40: dataclasses.replace(ring.keys[1], id=40)}
    ring = dataclasses.replace(ring, keys=number)
    keys = open_keys(released=lambda: crypt.dump_ring(ring))
    store = open_store(keys, folder=str(place / "kept"))
    one = suspect(store, 1)
    store.put([one])
    assert store._index.sealed(one.id)[1].kek == 40
    assert same(store.get(one.id), one)
    store.close()
