"""The files of a log: their names, and where a log ends."""

import os
from pathlib import Path

import pytest

from guard.errors import AuditError
from guard.gateway.audit import segments
from guard.gateway.audit.record import ZERO
from guard.gateway.audit.segments import (
    Ending,
    drop_unbegun,
    find_end,
    segment_files,
    segment_name,
    set_aside,
)
from tests.gateway.audit.logs import Place, call, place, written


@pytest.fixture
def there(tmp_path: Path) -> Place:
    """A log in several files."""
    return written(tmp_path / "log", segment_bytes=4096)


def test_names_are_numbers_of_fixed_width(tmp_path: Path) -> None:
    """Files sort as their numbers do; anything of another form is none of the log's."""
    assert segment_name(7) == "segment-000000000000007.jsonl"
    for name in (segment_name(10), segment_name(9), "segment-7.jsonl", f"{segment_name(3)}.bak",
                 f"x{segment_name(4)}", "checkpoints.jsonl"):  # fmt: skip
        (tmp_path / name).write_bytes(b"")
    assert segment_files(tmp_path) == [
        (9, tmp_path / segment_name(9)), (10, tmp_path / segment_name(10)),
    ]  # fmt: skip


def test_the_end_is_the_last_record_of_the_last_file(there: Place) -> None:
    """Its number, link, file and offset, the links of that file, and the log's id."""
    end = find_end(there.folder, there.keys)
    number, path = segment_files(there.folder)[-1]
    assert number > 1
    assert (end.path, end.offset) == (path, path.stat().st_size)
    assert end.seq == len(there.lines())
    assert list(end.links) == list(range(number, end.seq + 1))
    assert end.links[end.seq] == end.head != ZERO
    assert len(end.log) == 32
    assert (end.torn, end.problem) == (b"", "")


def test_an_empty_folder_has_no_end(tmp_path: Path) -> None:
    """A log begins at record 0, with nothing before it."""
    keys = place(tmp_path).keys
    (tmp_path / "empty").mkdir()
    assert find_end(tmp_path / "empty", keys) == Ending()
    assert Ending() == Ending(path=None, offset=0, seq=0, head=ZERO, log="", torn=b"", problem="")


def test_a_torn_end_is_told_from_an_altered_one(there: Place) -> None:
    """Half a line, or a hole that a power cut left, is a crash; a whole line that does not fit is
    not."""
    path = segment_files(there.folder)[-1][1]
    whole = path.read_bytes()
    size, last = len(whole), len(there.lines())
    for torn in (b'{"seq":', b"\0" * 50 + b"\n"):
        path.write_bytes(whole + torn)
        end = find_end(there.folder, there.keys)
        assert (end.torn, end.offset, end.seq, end.problem) == (torn, size, last, "")
    path.write_bytes(whole + b"altered\n")
    end = find_end(there.folder, there.keys)
    assert end.problem == f"{path.name}: what follows record {last} is not what was written"
    path.write_bytes(whole + whole.splitlines(keepends=True)[-1])  # the last record twice
    assert find_end(there.folder, there.keys).problem


def test_a_gap_in_the_numbers_ends_the_log(there: Place) -> None:
    """A record that was left out breaks the file there, even with the right key at hand."""
    path = segment_files(there.folder)[-1][1]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:1], *lines[2:]]))
    end = find_end(there.folder, there.keys)
    assert len(end.links) == 1
    assert "is not what was written" in end.problem


def test_files_that_hold_nothing_are_passed_over(there: Place) -> None:
    """What a crash left in files without a record is kept, in their order; earlier files count."""
    last = len(there.lines())
    (there.folder / segment_name(last + 1)).write_bytes(b"one")
    (there.folder / segment_name(last + 2)).write_bytes(b"two")
    end = find_end(there.folder, there.keys)
    assert (end.seq, end.torn) == (last, b"onetwo")
    drop_unbegun(there.folder, end)
    assert segment_files(there.folder)[-1][0] <= last
    assert find_end(there.folder, there.keys).torn == b""


def test_a_file_with_another_name_than_its_records_is_a_problem(there: Place) -> None:
    """The last file renamed to a later number."""
    number, path = segment_files(there.folder)[-1]
    path.rename(there.folder / segment_name(number + 1))
    problem = find_end(there.folder, there.keys).problem
    assert problem == f"{segment_name(number + 1)} holds other records than its name"


def test_what_is_set_aside_is_whole_and_described(
    there: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The torn bytes in a file of their own, durable before the log is cut; details to record."""
    path = segment_files(there.folder)[-1][1]
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"torn")
    order: list[object] = []
    monkeypatch.setattr(segments.os, "fsync", lambda _fd: order.append(path.stat().st_size))
    monkeypatch.setattr(segments, "sync_folder", order.append)
    end = find_end(there.folder, there.keys)
    details = set_aside(there.folder, end)
    assert order == [size + 4, there.folder, size]
    name = str(details["file"])
    assert name == f"torn-{end.seq + 1:015d}-{str(details['sha256'])[:8]}.bin"
    assert (there.folder / name).read_bytes() == b"torn"
    assert (there.folder / name).stat().st_mode & 0o777 == 0o600
    assert details["bytes"] == 4
    assert path.stat().st_size == size


def test_a_file_that_cannot_be_read_is_an_error(
    there: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line with the system's reason."""

    def broken(_path: Path) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", broken)
    with pytest.raises(AuditError, match="the audit log cannot be read: Input/output error"):
        find_end(there.folder, there.keys)


def test_a_first_record_of_an_unusable_log_is_a_problem(tmp_path: Path) -> None:
    """A file that begins in the middle of a log begins nothing."""
    there = place(tmp_path)
    log = there.open()
    log.write([call(1)])
    log.close()
    path = segment_files(there.folder)[0][1]
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[1])
    end = find_end(there.folder, there.keys)
    assert (end.seq, end.offset) == (0, 0)
    assert end.problem == f"{path.name}: what follows record 0 is not what was written"
    os.truncate(path, 0)
    assert find_end(there.folder, there.keys).problem == ""
