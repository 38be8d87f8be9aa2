"""The parts of a log on disk: checkpoint lines, key files, first lines, files that are none."""

import json
import os
from pathlib import Path

import pytest

from guard.errors import AuditError, ConfigError
from guard.gateway.audit import checkpoints
from guard.gateway.audit import log as log_module
from guard.gateway.audit.checkpoints import CheckpointFile
from guard.gateway.audit.keys import load_keys, make_keys
from guard.gateway.audit.record import finish, take_apart
from guard.gateway.audit.segments import find_end, segment_files
from tests.gateway.audit.logs import Place, call, place, written


def test_lines_that_are_no_checkpoint_are_none(tmp_path: Path) -> None:
    """Whatever is missing, mistyped or too long: no checkpoint, and no exception."""
    keys = make_keys(tmp_path / "keys")
    good = checkpoints.sign(keys, number=1, log="ab", seq=5, head=bytes(32))
    one = checkpoints.read(good)
    assert one is not None
    assert one.holds(keys)
    fields = json.loads(good)
    changes: list[dict[str, object]] = [
        {"seq": "5"}, {"seq": True}, {"head": 7}, {"head": "zz"}, {"log": None}, {"key": None},
    ]  # fmt: skip
    signature = {"signature": fields.pop("signature")}
    for change in changes:
        line = json.dumps({**fields, **change, **signature}, separators=(",", ":")).encode()
        assert checkpoints.read(line) is None, change
    for name in fields:
        less = {key: value for key, value in fields.items() if key != name}
        line = json.dumps({**less, **signature}, separators=(",", ":")).encode()
        assert checkpoints.read(line) is None, name
    assert checkpoints.read(good[:-5] + b'xy"}\n') is None
    assert checkpoints.read(b"[]" + good) is None
    assert checkpoints.read(b'{"log":"' + b"a" * 2000 + good) is None


def test_a_checkpoint_file_holds_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line cut by a crash goes with the next write, one cut by a full disk goes at once."""
    file = CheckpointFile(tmp_path)
    file.append([b"one\n"])
    with file.path.open("ab") as torn:
        torn.write(b"tw")
    file.append([b"two\n"])
    assert file.lines() == [b"one\n", b"two\n"]

    def full(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[:2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_all", full)
        with pytest.raises(OSError, match="space"):
            file.append([b"three\n"])
    assert file.path.read_bytes() == b"one\ntwo\n"


def test_a_file_that_cannot_be_put_right_at_once_is_put_right_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where even taking back fails, the next write takes back first."""
    there = place(tmp_path / "log")
    log = there.open()

    def broken(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[:9])
        raise OSError(5, "Input/output error")

    def stuck(_descriptor: int, _size: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(log_module, "write_all", broken)
        patch.setattr(log_module.os, "ftruncate", stuck)
        with pytest.raises(OSError, match="Input"):
            log.write([call(1)])
    log.write([call(2)])
    log.sync()
    log.checkpoint()
    log.close()
    assert there.verify().ok
    assert len(there.lines()) == 2


def test_a_new_file_that_cannot_be_made_leaves_the_old_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rotation that fails is tried again; nothing stays half done."""
    there = place(tmp_path / "log")
    log = there.open()
    log.write([call(n) for n in range(15)])
    real = log_module.write_all

    def full(descriptor: int, data: bytes) -> None:
        if b"log.segment" in data:
            raise OSError(28, "No space left on device")
        real(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(log_module, "write_all", full)
        with pytest.raises(OSError, match="space"):
            log.write([call(n) for n in range(9)])
    assert len(segment_files(there.folder)) == 1
    log.write([call(n) for n in range(9)])
    log.sync()
    log.checkpoint()
    log.close()
    assert len(segment_files(there.folder)) == 2
    assert there.verify().ok


def test_a_log_that_cannot_be_begun_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full from the start is told in one line."""
    there = place(tmp_path / "log")

    def full(_descriptor: int, _data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(log_module, "write_all", full)
        with pytest.raises(AuditError, match="No space"):
            there.open()
    there.open().close()
    assert there.verify_alone().ok


def begun(there: Place, body: bytes) -> Path:
    """A log whose only file begins with this record, correctly linked."""
    there.folder.mkdir()
    path = there.folder / "segment-000000000000001.jsonl"
    path.write_bytes(finish(body, there.keys.link(1, bytes(32), body)))
    return path


@pytest.mark.parametrize(
    "body",
    [
        b'{"seq":1,"key":1,"time":"2026-11-20T13:42:08.123456Z","event":"other","actor":""',
        b'{"seq":1,"key":1,"time":"2026-11-20T13:42:08.123456Z","event":"log.begin","actor":""',
        b'{"seq":1,"key":1,"time":"2026-11-20T13:42:08.123456Z","event":"log.begin","details":[}',
        b'{"seq":1,"key":7,"time":"2026-11-20T13:42:08.123456Z","event":"log.begin","actor":""',
        b'{"seq":1,"key":1,"time":"2026-11-20","event":"log.begin","actor":""',
    ],
)
def test_a_file_has_to_begin_as_files_of_a_log_do(tmp_path: Path, body: bytes) -> None:
    """A first record of another kind, without the log's id or of an unknown key is a problem."""
    there = place(tmp_path / "log")
    begun(there, body)
    ending = find_end(there.folder, there.keys)
    assert (ending.seq, bool(ending.problem)) == (0, True)
    with pytest.raises(AuditError):
        there.open()


def test_only_plain_files_are_files_of_a_log(tmp_path: Path) -> None:
    """Links and pipes by a right name are not read: they are missing, and that is a finding."""
    there = written(tmp_path / "log", 60, segment_bytes=4096)
    second = segment_files(there.folder)[1][1]
    second.rename(there.root / "elsewhere")
    second.symlink_to(there.root / "elsewhere")
    assert there.verify().findings[0].kind == "delete"
    second.unlink()
    os.mkfifo(second)
    assert there.verify().findings[0].kind == "delete"


def test_lines_are_taken_apart_only_if_whole() -> None:
    """The link has to be 64 lower-case hex digits in their place."""
    body = b'{"seq":1,"key":1,"time":"2026-11-20T13:42:08.123456Z","event":"other","actor":""'
    line = finish(body, bytes(range(32)))[:-1]
    one = take_apart(line)
    assert one is not None
    assert (one.seq, one.key, one.event, one.body) == (1, 1, "other", body)
    link = bytes(range(32)).hex().encode()
    for wrong in (
        line[:-1],
        line + b" ",
        line[:-10] + b'zzzzzzzz"}',
        line.replace(link, link.upper()),
    ):
        assert take_apart(wrong) is None


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"keys": []},
        {"keys": [{"id": 2, "made": "", "mac": "00" * 32, "public": "00" * 32}]},
        {"keys": [{"id": 1, "made": "", "mac": "00" * 31, "public": "00" * 32}]},
        {"keys": [{"id": 1, "made": "", "public": "00" * 32}]},
        {"keys": 7},
    ],
)
def test_malformed_keys_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    """A key file that is not what was written is one clear error."""
    path = tmp_path / "keys"
    make_keys(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ConfigError, match="malformed"):
        load_keys(path)


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    """Making keys where there are some leaves them as they are."""
    path = tmp_path / "keys"
    make_keys(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="File exists"):
        make_keys(path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["keys"]
