"""Records as lines: which are shown, and what is shown of what is none."""

from pathlib import Path

import pytest

from guard.errors import AuditError, ConfigError
from guard.gateway.audit.show import plain, records
from tests.gateway.audit.logs import Place, call, place, written


@pytest.fixture
def there(tmp_path: Path) -> Place:
    """A log of three records by two subjects, in one file."""
    where = place(tmp_path / "log")
    log = where.open()
    log.write([call(1, "1:aa"), call(2, "1:bb")])
    log.sync()
    log.close()
    return where


def test_records_come_in_order_with_all_their_parts(there: Place) -> None:
    """Every file, every record, as it was written."""
    shown = list(records(there.folder))
    assert [one["event"] for one in shown] == ["log.begin", "admin.call", "admin.call"]
    assert [one["seq"] for one in shown] == [1, 2, 3]
    assert shown[1]["details"] == {"rpc": "Status", "n": 1}
    assert (shown[1]["actor"], shown[1]["outcome"]) == ("1:aa", "ok")
    many = written(there.root / "many", segment_bytes=4096)
    assert [one["seq"] for one in records(many.folder)] == list(range(1, len(many.lines()) + 1))


def test_what_matches_is_shown(there: Place) -> None:
    """By event or its beginning, by subject, by time or the beginning of one; all must fit."""

    def seqs(**how: object) -> list[int]:
        return [one["seq"] for one in records(there.folder, **how)]  # type: ignore[arg-type]

    assert seqs(events=["admin"]) == seqs(events=["admin.call"]) == [2, 3]
    assert seqs(events=["log", "admin.call"]) == [1, 2, 3]
    assert seqs(events=["adm"]) == seqs(events=["admin.call.more"]) == []
    assert seqs(actors=["1:bb", "1:cc"]) == [3]
    assert seqs(actors=["1:aa"], events=["log"]) == []
    times = [one["time"] for one in records(there.folder)]
    assert seqs(since=times[1]) == [n + 1 for n, time in enumerate(times) if time >= times[1]]
    assert seqs(until=times[0]) == [n + 1 for n, time in enumerate(times) if time <= times[0]]
    assert seqs(since=times[0][:10], until=times[2][:10]) == [1, 2, 3]
    assert seqs(since="9") == seqs(until="0") == []
    assert seqs(until="9") == [1, 2, 3]


def test_what_is_no_record_is_shown_as_that(there: Place) -> None:
    """Garbage is counted, not hidden; a record without a part has a question mark there."""
    path = next(there.folder.glob("segment-*"))
    path.write_bytes(path.read_bytes() + b"garbage\n\n" + b'{"seq":7,"details":[]}\n')
    *_, garbage, partial = records(there.folder)
    assert garbage == {
        "seq": "?", "time": "?", "event": "unreadable", "actor": "", "outcome": "?",
        "details": {"bytes": 7},
    }  # fmt: skip
    assert plain(garbage) == "? #? unreadable ? - bytes=7"
    assert partial["event"] == "?"
    assert plain(partial) == "? #7 ? ? -"


def test_a_line_says_all_of_a_record_and_steers_nothing(there: Place) -> None:
    """Time, number, event, outcome, subject, details; letters that are not printable become ?."""
    one = list(records(there.folder))[1]
    assert plain(one) == f"{one['time']} #2 admin.call ok 1:aa rpc=Status n=1"
    assert plain({**one, "actor": "", "details": {}}) == f"{one['time']} #2 admin.call ok -"
    steering = plain({**one, "event": "a\x1b[2Jb", "details": {"rpc": "x\ny"}})
    assert "a?[2Jb" in steering
    assert "\n" not in steering


def test_a_folder_without_a_log_is_an_error(tmp_path: Path) -> None:
    """Empty, or not there at all."""
    with pytest.raises(ConfigError, match="holds no audit log") as caught:
        list(records(tmp_path))
    assert caught.value.key == "folder"
    with pytest.raises(AuditError, match="nowhere: No such file"):
        list(records(tmp_path / "nowhere"))
