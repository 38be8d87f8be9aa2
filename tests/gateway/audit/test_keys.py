"""The keys of an audit log: what is in the file, who may sign, what is never shown."""

import json
import os
from pathlib import Path

import pytest

from guard.errors import ConfigError
from guard.gateway.audit import keys as module
from guard.gateway.audit.keys import (
    ACTOR_HEX,
    MAX_FILE,
    KeyRing,
    load_keys,
    make_keys,
    parse_keys,
    rotate_keys,
    write_reader,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with two keys, in a folder that did not exist."""
    file = tmp_path / "new" / "secrets" / "keys"
    make_keys(file)
    rotate_keys(file)
    return file


def test_a_file_holds_every_key_in_order(path: Path) -> None:
    """Numbers from 1, four keys of 32 bytes each, all different, none lost by a rotation."""
    first, second = load_keys(path).keys.values()
    assert (first.id, second.id) == (1, 2)
    secrets = [value for one in (first, second) for value in (one.mac, one.actor, one.seed)]
    assert len({value for value in secrets if value is not None and len(value) == 32}) == 6
    assert first.public != second.public
    assert first.made.endswith("Z")
    assert load_keys(path).current == second
    content = json.loads(path.read_text())
    assert content["format"] == "guard-audit-keys-1"
    assert set(content["keys"][0]) == {"id", "made", "mac", "public", "actor", "seed"}
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [one.name for one in path.parent.iterdir()] == ["keys"]


def test_a_subject_is_the_same_under_one_key_and_another_under_the_next(path: Path) -> None:
    """A name is found again by all its hashes, the key in use last; nobody has none."""
    ring = load_keys(path)
    old, new = ring.actors("alice")
    assert ring.actor("alice") == new
    assert old.startswith("1:")
    assert new.startswith("2:")
    assert len(new) == 2 + ACTOR_HEX == 34
    assert old[2:] != new[2:]
    assert ring.actor("bob") != new
    assert ring.actor("") == ""


def test_signatures_are_checked_with_the_key_that_is_named(path: Path) -> None:
    """Another key, other bytes, a number that is none: not signed, and no exception."""
    ring = load_keys(path)
    signature = ring.sign(b"data")
    assert ring.signed(2, b"data", signature) is True
    assert ring.signed(1, b"data", signature) is False
    assert ring.signed(2, b"other", signature) is False
    assert ring.signed(3, b"data", signature) is False
    assert ring.signed(2, b"data", b"") is False
    assert ring.link(1, b"a", b"b") != ring.link(2, b"a", b"b")


def test_a_readers_copy_verifies_and_nothing_else(path: Path, tmp_path: Path) -> None:
    """It links and checks as the original does; it cannot sign, find subjects, or be rotated."""
    ring, copy = load_keys(path), tmp_path / "reader"
    write_reader(ring, copy)
    reader = load_keys(copy)
    assert reader.link(2, b"a", b"b") == ring.link(2, b"a", b"b")
    assert reader.signed(2, b"data", ring.sign(b"data"))
    for forbidden in (
        lambda: reader.sign(b""),
        lambda: reader.actors("a"),
        lambda: reader.actor("a"),
    ):
        with pytest.raises(ConfigError, match="reader's copy") as caught:
            forbidden()
        assert caught.value.key == "key"
    with pytest.raises(ConfigError, match="reader's copy: rotate the gateway's own") as caught:
        rotate_keys(copy)
    assert caught.value.key == "key_file"
    text = copy.read_text()
    seeds = [one.seed for one in ring.keys.values()] + [one.actor for one in ring.keys.values()]
    assert not [seed for seed in seeds if seed and seed.hex() in text]
    with pytest.raises(ConfigError, match="File exists"):
        write_reader(ring, copy)


def test_keys_are_not_shown(path: Path) -> None:
    """What a log line or a traceback would print of a ring holds no secret part of it."""
    ring = load_keys(path)
    for one in ring.keys.values():
        for secret in (one.mac, one.actor, one.seed):
            assert repr(secret)[2:20] not in repr(ring)


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o610, 0o604, 0o602, 0o601])
def test_a_file_that_anybody_else_may_touch_is_refused(path: Path, mode: int) -> None:
    """Read, write or execute, group or others."""
    path.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600") as caught:
        load_keys(path)
    assert caught.value.key == "key_file"
    path.chmod(0o400)
    assert load_keys(path).current.id == 2


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """In one line, with the setting."""
    with pytest.raises(ConfigError, match="nowhere: No such file") as caught:
        load_keys(tmp_path / "nowhere")
    assert caught.value.key == "key_file"


def test_no_more_than_a_megabyte_is_read(path: Path) -> None:
    """A huge file is cut, and so malformed, not read into memory."""
    text = path.read_text()
    path.write_text(text + " " * (MAX_FILE - len(text)))
    assert load_keys(path).current.id == 2
    path.write_text(" " * MAX_FILE + text)
    with pytest.raises(ConfigError, match="malformed"):
        load_keys(path)


def test_numbers_must_run_from_one() -> None:
    """Neither none, nor a gap, nor twice the same, nor keys of another length."""
    entry = {"id": 1, "made": "", "mac": "aa" * 32, "public": "bb" * 32}

    def ring(*entries: dict[str, object]) -> KeyRing:
        content = {"format": "guard-audit-keys-1", "keys": list(entries)}
        return parse_keys(json.dumps(content).encode(), "these keys", "some.key")

    assert ring(entry, {**entry, "id": 2}).current.id == 2
    for bad in (
        [], [{**entry, "id": 2}], [entry, entry], [{**entry, "mac": "aa" * 31}],
        [{**entry, "public": ""}], [{**entry, "mac": None}], [{**entry, "seed": "cc"}],
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="these keys is malformed") as caught:
            ring(*bad)
        assert caught.value.key == "some.key"


@pytest.mark.parametrize(
    "raw", [b"[" * 5000, b'{"format":"guard-audit-keys-1","keys":[{"id":Infinity}]}', b"7", b"\xff"]
)
def test_nonsense_is_malformed(raw: bytes) -> None:
    """Whatever the bytes are: one kind of error."""
    with pytest.raises(ConfigError, match="malformed"):
        parse_keys(raw, "these keys", "key")


def test_writing_keys_is_all_or_nothing_and_durable(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk leaves the old file and no draft; what is written is synced, with its name."""
    before = path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "fsync", full)
        with pytest.raises(ConfigError, match="No space left") as caught:
            rotate_keys(path)
    assert caught.value.key == "key_file"
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == ["keys"]
    synced: list[str] = []
    real = os.fsync

    def watch(descriptor: int) -> None:
        synced.append(os.path.realpath(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(module.os, "fsync", watch)
    assert rotate_keys(path).current.id == 3
    assert Path(synced[0]).name.startswith(".keys.")
    assert synced[1:] == [str(path.parent)]
