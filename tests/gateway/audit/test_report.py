"""What a verification says: counts, notes, lines for people and programs, guesses in words."""

import json
import shutil
from pathlib import Path

import pytest

from guard.errors import AuditError, ConfigError
from guard.gateway.audit import checkpoints, suspicion
from guard.gateway.audit.checkpoints import NAME
from guard.gateway.audit.keys import rotate_keys
from guard.gateway.audit.record import take_apart
from guard.gateway.audit.segments import segment_files
from guard.gateway.audit.suspicion import Break
from guard.gateway.audit.verify import Finding, Report, verify
from tests.gateway.audit.logs import Place, call, place, written


@pytest.fixture
def there(tmp_path: Path) -> Place:
    """31 records in one file, checkpoints at 11, 21 and 31."""
    return written(tmp_path / "log", count=30, every=10)


@pytest.fixture
def in_files(tmp_path: Path) -> Place:
    """A log in several files."""
    return written(tmp_path / "files", segment_bytes=4096)


def test_an_intact_log_is_counted(there: Place) -> None:
    """Records, files, checkpoints, the first and last record, what is signed, whose log it is."""
    report = there.verify()
    assert report.record() == {
        "ok": True, "records": 31, "segments": 1, "checkpoints": 3, "first": 1, "last": 31,
        "signed": 31, "log": report.log, "notes": [], "findings": [],
    }  # fmt: skip
    assert len(report.log) == 32
    assert list(report.lines()) == [
        "intact: records 1 to 31 in 1 files, 3 checkpoints, signed up to record 31"
    ]
    assert json.dumps(report.record())


def test_findings_come_first_then_notes_then_the_verdict() -> None:
    """A finding names its kind, its place, its record where there is one, and what happened."""
    report = Report(first=1, last=2, notes=["a note"])
    report.findings += [Finding("edit", "file", 7, "changed"), Finding("forge", "x:1", None, "no")]
    assert not report.ok
    assert list(report.lines()) == [
        "EDIT: file record 7: changed",
        "FORGE: x:1: no",
        "note: a note",
        "NOT INTACT: records 1 to 2 in 0 files, 0 checkpoints, signed up to record 0",
    ]
    assert report.record()["findings"][0] == {
        "kind": "edit", "where": "file", "record": 7, "text": "changed",
    }  # fmt: skip


def test_notes_say_what_nobody_can_know(there: Place, tmp_path: Path) -> None:
    """Checkpoints beside the log only; records after the last one; a clock that was set back."""
    alone = verify(there.folder, there.keys)
    assert alone.notes == [
        "only the checkpoints beside the log were looked at: whoever could change it could cut"
        " both; give --checkpoints with those kept elsewhere"
    ]
    log = there.open(segment_bytes=1 << 20)
    log.write([call(1)._replace(time="1999-01-01T00:00:00.000000Z"), call(2)])
    log.sync()
    log.close()
    assert there.verify().notes == [
        "the clock was set back before record 32",
        "records after 31 are not covered by a checkpoint yet",
    ]
    path = segment_files(there.folder)[0][1]
    with path.open("ab") as file:
        file.write(b"torn")
    note = there.verify().notes[1]
    assert note.startswith(f"{path.name} ends with an unfinished line of 4 bytes: a crash, or")


def test_a_torn_line_within_the_log_is_no_crash(in_files: Place) -> None:
    """Only the last file may end in the middle of a line."""
    path = segment_files(in_files.folder)[0][1]
    path.write_bytes(path.read_bytes() + b"torn")
    (finding,) = in_files.verify().findings[:1]
    assert (finding.kind, finding.where) == ("edit", path.name)
    assert finding.text == "an unfinished line inside the log"


def test_missing_files_are_named_by_their_records(in_files: Place) -> None:
    """Which records were in the file that is gone, and where the gap is seen."""
    files = segment_files(in_files.folder)
    files[1][1].unlink()
    finding = in_files.verify().findings[0]
    missing = f"records {files[1][0]} to {files[2][0] - 1} are missing: a file was deleted or cut"
    assert finding == Finding("delete", files[2][1].name, files[1][0], missing)


def test_swapped_and_foreign_files_are_told_apart(in_files: Place) -> None:
    """A file under another's name; one that does not belong there at all."""
    (_, one), (two, other) = segment_files(in_files.folder)[1:3]
    contents = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])
    finding = in_files.verify().findings[0]
    assert finding.text == f"it holds record {two} first: files were swapped"
    one.write_bytes(contents[0])
    other.write_bytes(contents[1])
    shutil.copy(one, in_files.folder / "segment-000000000000002.jsonl")
    finding = in_files.verify().findings[0]
    assert (finding.kind, finding.text) == ("insert", "this file does not belong here")


def test_archived_files_are_noted_and_their_link_is_asked_for(in_files: Place) -> None:
    """From a later file on: first record, files and records are those that were looked at."""
    files = segment_files(in_files.folder)
    report = in_files.verify(since=files[2][0])
    assert report.ok
    assert (report.first, report.segments) == (files[2][0], len(files) - 2)
    assert report.records == report.last - report.first + 1
    assert report.notes == [f"records before {files[2][0]} are taken as archived, not verified"]
    path = files[2][1]
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([b"nothing", *lines[1:]]))
    finding = in_files.verify(since=files[2][0]).findings[0]
    assert (finding.kind, finding.text) == ("edit", "it does not begin as files of a log do")
    with pytest.raises(ConfigError, match="no file of the log begins with record 9999") as caught:
        in_files.verify(since=9999)
    assert caught.value.key == "since"


def test_keys_that_were_replaced_do_not_come_back(tmp_path: Path) -> None:
    """After a rotation a record with the old key is a finding, though the old key is known."""
    there = place(tmp_path / "log")
    log = there.open()
    log.write([call(n) for n in range(3)])
    log.close()
    newer = Place(there.root, rotate_keys(there.root / "keys"))
    log = newer.open()
    log.write([call(n) for n in range(3)])
    log.close()
    assert newer.verify_alone().ok
    lines = newer.lines()
    last = take_apart(lines[-1])
    assert last is not None
    body = last.body.replace(b'"seq":7,"key":2', b'"seq":8,"key":1')
    link = newer.keys.link(1, last.link, body)
    forged = body + b',"link":"' + link.hex().encode() + b'"}'
    newer.rewrite(lambda all_: [*all_, forged])
    finding = newer.verify_alone().findings[0]
    assert (finding.kind, finding.record) == ("re-stamp", 8)
    assert finding.text == "it was linked with a key that had been replaced"


def test_spoiled_checkpoints_are_named_by_place_and_number(there: Place) -> None:
    """Which file and line, which checkpoint, what is wrong with it; later ones still count."""
    lines = there.exported()
    file = there.export / NAME

    def found(*changed: bytes) -> list[tuple[str, str, int | None, str]]:
        there.export_again(changed)
        return [tuple(one) for one in there.verify().findings]

    assert found(lines[0], b"garbage", *lines[1:]) == [
        ("forge", f"{file}:2", None, "this is no checkpoint")
    ]
    assert found(lines[0], lines[2]) == [
        ("delete", f"{file}:2", 31, "checkpoints 2 to 2 are missing")
    ]
    assert found(*lines, lines[0]) == [
        ("replay", f"{file}:4", 11, "checkpoint 1 comes after 3: an old one, put in again")
    ]
    changed = lines[1].replace(b'"seq":21', b'"seq":20')
    assert found(lines[0], changed, lines[2]) == [
        ("forge", f"{file}:2", 20, "checkpoint 2 was not signed with a key of this log")
    ]
    foreign = checkpoints.sign(there.keys, number=4, log="f" * 32, seq=31, head=bytes(32))
    assert found(*lines, foreign.rstrip(b"\n")) == [
        ("replay", f"{file}:4", 31, "checkpoint 4 is of another log")
    ]


def test_a_cut_log_says_where_it_ends(there: Place) -> None:
    """The record that was signed, and the last that is left."""
    there.rewrite(lambda lines: lines[:15])
    findings = there.verify().findings
    assert {one.text for one in findings} == {
        "this record was signed, but the log ends at record 15"
    }
    assert {one.record for one in findings} == {21, 31}


def test_what_cannot_be_verified_is_an_error(there: Place, tmp_path: Path) -> None:
    """No log, no checkpoints where they should be, a folder that is not there: one line."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="empty holds no audit log") as caught:
        verify(tmp_path / "empty", there.keys)
    assert caught.value.key == "folder"
    with pytest.raises(ConfigError, match="empty holds no checkpoints") as caught:
        verify(there.folder, there.keys, exported=tmp_path / "empty")
    assert caught.value.key == "checkpoints"
    with pytest.raises(AuditError, match="nowhere: No such file"):
        verify(tmp_path / "nowhere", there.keys)
    single = there.export / NAME
    assert verify(there.folder, there.keys, exported=single).ok


def broken(there: Place, lines: list[bytes], at: int, due: int, **more: int) -> tuple[str, str]:
    """The guess at what was done, where `lines[at]` is not record `due`."""
    before = take_apart(lines[at - 1]) if at else None
    head = before.link if before else bytes(32)
    return suspicion.what(Break(lines, at, [], head, due, more.get("key", 1)), there.keys)


def test_guesses_are_put_in_words(there: Place) -> None:
    """Each kind of break says which records it is about."""
    ls = there.lines()
    other = ls[9].replace(b'"ok"', b'"no"')
    assert broken(there, [*ls[:9], *ls[10:]], 9, 10) == ("delete", "record 10 is missing")
    assert broken(there, [*ls[:9], *ls[13:]], 9, 10) == ("delete", "records 10 to 13 are missing")
    assert broken(there, [*ls[:9], ls[4], *ls[9:]], 9, 10) == (
        "insert", "a record numbered 5 was put before record 10",
    )  # fmt: skip
    assert broken(there, [*ls, ls[4]], 31, 32) == (
        "insert", "a record numbered 5 was put behind record 31",
    )  # fmt: skip
    assert broken(there, [*ls[:9], ls[10], ls[9], *ls[11:]], 9, 10) == (
        "reorder", "record 11 stands where record 10 belongs",
    )  # fmt: skip
    assert broken(there, [*ls[:9], other, *ls[9:]], 9, 10) == (
        "insert", "this record was put before the real record 10",
    )  # fmt: skip
    assert broken(there, [*ls[:9], other, *ls[10:]], 9, 10) == (
        "edit", "its content was changed; the record after it still fits its old link",
    )  # fmt: skip
    assert broken(there, [*ls[:30], ls[30].replace(b'"ok"', b'"no"')], 30, 31) == (
        "edit", "the last record was changed, or its link was",
    )  # fmt: skip
    assert broken(there, [*ls[:9], b"x", *ls[10:]], 9, 10)[1] == "this line is no record any more"
    strange = ls[9].replace(b'"key":1', b'"key":7')
    assert broken(there, [*ls[:9], strange], 9, 10) == (
        "wrong key", "it names key 7, which the key file does not hold",
    )  # fmt: skip
    assert broken(there, [ls[0].replace(b'"ok"', b'"no"'), b"y"], 0, 1)[0] == "wrong key"
    assert broken(there, [*ls[:9], other, other], 9, 10)[0] == "re-stamp"
