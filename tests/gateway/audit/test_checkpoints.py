"""Checkpoints: whose they are, which is the newest, and that they survive."""

from pathlib import Path

import pytest

from guard.gateway.audit import checkpoints
from guard.gateway.audit.checkpoints import MAX_LINE, CheckpointFile, read, sign, write_all
from guard.gateway.audit.keys import KeyRing, make_keys


@pytest.fixture
def keys(tmp_path: Path) -> KeyRing:
    """New keys."""
    return make_keys(tmp_path / "keys")


def line(keys: KeyRing, number: int = 1, log: str = "ab") -> bytes:
    """A checkpoint of record 10 x number."""
    return sign(keys, number=number, log=log, seq=10 * number, head=bytes(32))


def test_a_line_says_what_was_signed(keys: KeyRing) -> None:
    """Every part comes back, with or without the newline; anything behind it is refused."""
    whole = line(keys, 3)
    one = read(whole)
    assert one == read(whole.rstrip(b"\n"))
    assert one is not None
    assert (one.number, one.log, one.seq, one.head, one.key) == (3, "ab", 30, bytes(32), 1)
    assert len(one.time) == 27
    assert one.holds(keys)
    for behind in (b"X", b"X\n", b" ", b"}"):
        assert read(whole.rstrip(b"\n") + behind) is None


def test_a_signature_is_over_what_it_is_for(keys: KeyRing) -> None:
    """The same bytes signed without the prefix of checkpoints are no checkpoint."""
    one = read(line(keys))
    assert one is not None
    assert not one._replace(signature=keys.sign(one.signed)).holds(keys)
    assert one._replace(signature=keys.sign(b"guard audit checkpoint 1\n" + one.signed)).holds(keys)


def test_a_line_may_be_so_long_and_no_longer(keys: KeyRing) -> None:
    """The bound counts the newline."""
    short = len(line(keys, log=""))
    assert read(line(keys, log="a" * (MAX_LINE - short))) is not None
    assert read(line(keys, log="a" * (MAX_LINE - short + 1))) is None


def test_a_deep_line_is_no_checkpoint() -> None:
    """As deep as the bound on its length lets it be."""
    assert read(b"[" * 990 + b',"signature":"ab"}') is None


def test_the_newest_of_a_log_is_found(tmp_path: Path, keys: KeyRing) -> None:
    """Other logs' checkpoints and lines that are none are passed over; none is None."""
    file = CheckpointFile(tmp_path)
    assert file.lines() == []
    assert file.last("ab") is None
    file.append([line(keys, 1), line(keys, 2)])
    file.append([line(keys, 9, log="cd"), b"garbage\n"])
    newest = file.last("ab")
    assert newest is not None
    assert newest.number == 2
    assert file.last("ef") is None
    assert len(file.lines()) == 4


def test_a_new_files_name_is_made_durable_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut a file whose folder was not synced would be gone."""
    synced: list[Path] = []
    monkeypatch.setattr(checkpoints, "sync_folder", synced.append)
    file = CheckpointFile(tmp_path)
    file.append([b"one\n"])
    assert synced == [tmp_path]
    file.append([b"two\n"])
    assert synced == [tmp_path]
    assert file.path.name == "checkpoints.jsonl"
    assert file.path.stat().st_mode & 0o777 == 0o600


def test_every_line_is_durable_before_append_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sync sees the whole file; where it fails nothing of the lines stays."""
    file = CheckpointFile(tmp_path)
    seen: list[bytes] = []
    monkeypatch.setattr(checkpoints.os, "fsync", lambda _fd: seen.append(file.path.read_bytes()))
    file.append([b"one\n", b"two\n"])
    assert seen[0] == b"one\ntwo\n"

    def broken(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(checkpoints.os, "fsync", broken)
    with pytest.raises(OSError, match="Input"):
        file.append([b"three\n"])
    assert file.lines() == [b"one\n", b"two\n"]


def test_an_unfinished_end_of_any_length_goes(tmp_path: Path) -> None:
    """What a crash left is cut back to the last newline, and to nothing where there is none."""
    for kept, torn in ((b"one\n", b"t" * 900), (b"", b"torn"), (b"a\nb\n", b"{")):
        file = CheckpointFile(tmp_path)
        file.path.write_bytes(kept + torn)
        file.append([b"new\n"])
        assert file.path.read_bytes() == kept + b"new\n"


def test_short_writes_are_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may take a byte at a time; all of it is written, in order, once."""
    taken: list[bytes] = []

    def one(_descriptor: int, data: memoryview) -> int:
        taken.append(bytes(data[:1]))
        return 1

    monkeypatch.setattr(checkpoints.os, "write", one)
    write_all(0, b"abc")
    assert taken == [b"a", b"b", b"c"]
