"""Verification: every kind of tampering is seen, and said for what it looks like."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.errors import ConfigError
from guard.gateway.audit import checkpoints, record
from guard.gateway.audit.keys import AuditKey, KeyRing, make_keys
from guard.gateway.audit.segments import segment_files
from guard.gateway.audit.verify import verify
from tests.gateway.audit.logs import Change, Place, call, place, written


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """61 records in one file, checkpoints at 21, 41 and 61."""
    return written(tmp_path_factory.mktemp("audit") / "original")


@pytest.fixture(scope="module")
def in_files(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The same in several files."""
    return written(tmp_path_factory.mktemp("audit") / "files", segment_bytes=4096)


@pytest.fixture
def there(original: Place, tmp_path: Path) -> Place:
    """A copy of the log to spoil."""
    return copied(original, tmp_path)


def copied(original: Place, root: Path) -> Place:
    """The same log elsewhere."""
    shutil.copytree(original.root, root / "copy")
    return Place(root / "copy", original.keys)


def forged(keys: KeyRing, start: int) -> Change:
    """Everything from record `start` changed a little and linked anew with these keys."""

    def change(lines: list[bytes]) -> list[bytes]:
        before = record.take_apart(lines[start - 2]) if start > 1 else None
        head = before.link if before else record.ZERO
        done = []
        for line in lines[start - 1 :]:
            old = record.take_apart(line)
            assert old is not None
            body = old.body.replace(b'"ok"', b'"OK"')
            head = keys.link(1, head, body)
            done.append(record.finish(body, head)[:-1])
        return [*lines[: start - 1], *done]

    return change


def edited(at: int) -> Change:
    """One record says something else."""
    return lambda lines: [
        line.replace(b'"Status"', b'"Statut"') if n == at else line
        for n, line in enumerate(lines, start=1)
    ]


def other_keys(tmp_path: Path) -> KeyRing:
    """Keys of somebody who does not have ours."""
    return make_keys(tmp_path / "other-keys")


def test_an_untouched_log_is_intact(original: Place, in_files: Place) -> None:
    """Nothing is found where nothing was done, in one file and in many."""
    for log, files in ((original, 1), (in_files, 4)):
        report = log.verify()
        assert report.ok
        assert not report.notes
        assert report.records == report.last == report.signed >= 61
        assert report.segments >= files
        assert report.checkpoints == 3


CHANGES: list[tuple[str, Change, str, int]] = [
    ("edit", edited(30), "edit", 30),
    ("edit the last", edited(61), "edit", 61),
    ("no record any more", lambda ls: [*ls[:9], b"hello", *ls[10:]], "edit", 10),
    ("delete", lambda ls: [*ls[:29], *ls[30:]], "delete", 30),
    ("delete several", lambda ls: [*ls[:29], *ls[40:]], "delete", 30),
    ("delete the first", lambda ls: ls[1:], "delete", 1),
    ("insert a copy of an earlier one", lambda ls: [*ls[:29], ls[4], *ls[29:]], "insert", 30),
    ("insert a copy of a later one", lambda ls: [*ls[:29], ls[49], *ls[29:]], "insert", 30),
    ("insert a copy of the one before", lambda ls: [*ls[:29], ls[28], *ls[29:]], "insert", 30),
    (
        "insert one with the number that is due",
        lambda ls: [*ls[:29], ls[29].replace(b'"ok"', b'"no"'), *ls[29:]],
        "insert",
        30,
    ),
    ("append a copy", lambda ls: [*ls, ls[-1]], "insert", 62),
    ("swap neighbours", lambda ls: [*ls[:29], ls[30], ls[29], *ls[31:]], "reorder", 30),
    ("swap distant", lambda ls: [*ls[:9], ls[49], *ls[10:49], ls[9], *ls[50:]], "reorder", 10),
    ("move", lambda ls: [*ls[:9], *ls[10:40], ls[9], *ls[40:]], "reorder", 10),
    ("reverse", lambda ls: ls[::-1], "reorder", 1),
]


@pytest.mark.parametrize(
    ("change", "kind", "at"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES]
)
def test_a_changed_log_is_seen_and_named(there: Place, change: Change, kind: str, at: int) -> None:
    """The first bad record is found, and what was done to it is said."""
    there.rewrite(change)
    report = there.verify()
    assert (report.findings[0].kind, report.findings[0].record) == (kind, at)


def test_linking_anew_without_the_key_is_seen(there: Place, tmp_path: Path) -> None:
    """Whoever changes a record and repairs the chain with keys of their own is found out."""
    there.rewrite(forged(other_keys(tmp_path), 30))
    (first,) = there.verify().findings
    assert (first.kind, first.record) == ("re-stamp", 30)


def test_linking_anew_with_the_key_is_seen_by_the_checkpoints(there: Place) -> None:
    """A thief of the key who rewrites history contradicts what was signed and kept elsewhere."""
    there.rewrite(forged(there.keys, 30))
    found = there.verify().findings
    assert {one.kind for one in found} == {"re-stamp"}
    assert {one.record for one in found} == {41, 61}


def test_wrong_keys_are_said_to_be_wrong(there: Place, tmp_path: Path) -> None:
    """Verifying with other keys fails, and says why."""
    report = verify(there.folder, other_keys(tmp_path), exported=there.export)
    assert report.findings[0].kind == "wrong key"
    assert {one.kind for one in report.findings[1:]} == {"forge"}


@pytest.mark.parametrize(("kept", "seen"), [(0, True), (20, True), (60, True), (61, False)])
def test_truncation_is_seen_up_to_the_last_exported_checkpoint(
    tmp_path: Path, kept: int, seen: bool
) -> None:
    """A log cut before its last checkpoint is found out; after it nobody can, and it is said."""
    log = written(tmp_path / "log", tail=5)
    assert any("after 61" in note for note in log.verify().notes)
    log.rewrite(lambda lines: lines[:kept])
    (log.folder / checkpoints.NAME).unlink()
    report = log.verify()
    assert report.ok is not seen
    if seen:
        assert {one.kind for one in report.findings} == {"truncate"}
        assert report.last == kept


def test_a_log_that_is_gone_is_truncated(there: Place) -> None:
    """Checkpoints without a log are a finding, not an empty success."""
    for _, path in segment_files(there.folder):
        path.unlink()
    assert there.verify().findings[0].kind == "truncate"
    shutil.rmtree(there.export)
    (there.folder / checkpoints.NAME).unlink()
    with pytest.raises(ConfigError, match="no audit log"):
        verify(there.folder, there.keys)


def test_swapped_files_are_seen(in_files: Place, tmp_path: Path) -> None:
    """Two files that trade names, in whole or in content."""
    there = copied(in_files, tmp_path)
    (_, one), (_, two) = segment_files(there.folder)[1:3]
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    finding = there.verify().findings[0]
    assert (finding.kind, finding.where) == ("swap", one.name)


def test_files_lost_put_in_or_of_another_log_are_seen(in_files: Place, tmp_path: Path) -> None:
    """A missing file is a deletion, an additional one an insertion, a foreign one does not fit."""
    files = [path.name for _, path in segment_files(in_files.folder)]
    lost = copied(in_files, tmp_path / "lost")
    (lost.folder / files[1]).unlink()
    assert lost.verify().findings[0].kind == "delete"
    more = copied(in_files, tmp_path / "more")
    shutil.copy(more.folder / files[0], more.folder / "segment-000000000000003.jsonl")
    assert more.verify().findings[0].kind == "insert"
    other = written(tmp_path / "other", segment_bytes=4096)
    foreign = copied(in_files, tmp_path / "foreign")
    shutil.copy(other.folder / files[1], foreign.folder / files[1])
    assert not foreign.verify().ok


def test_a_file_of_an_earlier_log_with_the_same_keys_does_not_fit(tmp_path: Path) -> None:
    """Files cannot be traded between two logs, even where the keys are the same."""
    first = written(tmp_path / "first", segment_bytes=4096)
    second = Place(tmp_path / "second", first.keys)
    log = second.open()
    log.write([call(n) for n in range(60)])
    log.close()
    name = segment_files(second.folder)[1][1].name
    shutil.copy(first.folder / name, second.folder / name)
    assert not verify(second.folder, second.keys).ok


def spoiled(there: Place, how: str, tmp_path: Path) -> list[bytes]:
    """The exported checkpoints with one of them spoiled."""
    lines = there.exported()
    if how == "replayed":
        return [*lines, lines[0]]
    if how == "missing":
        return [lines[0], lines[2]]
    if how == "edited":
        return [lines[0], lines[1].replace(b'"seq":41', b'"seq":40'), lines[2]]
    if how == "garbage":
        return [*lines, b"not a checkpoint"]
    keys = other_keys(tmp_path)
    head = record.take_apart(there.lines()[-1])
    assert head is not None
    log = json.loads(lines[0])["log"]
    if how == "forged":
        return [
            *lines,
            checkpoints.sign(keys, number=4, log=log, seq=62, head=head.link).rstrip(b"\n"),
        ]
    return [
        *lines,
        checkpoints.sign(there.keys, number=4, log="f" * 32, seq=62, head=head.link).rstrip(b"\n"),
    ]


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("replayed", "replay"),
        ("missing", "delete"),
        ("edited", "forge"),
        ("garbage", "forge"),
        ("forged", "forge"),
        ("foreign", "replay"),
    ],
)
def test_spoiled_checkpoints_are_seen(there: Place, tmp_path: Path, how: str, kind: str) -> None:
    """A checkpoint that was repeated, removed, changed, made up or taken from another log."""
    there.export_again(spoiled(there, how, tmp_path))
    assert [one.kind for one in there.verify().findings] == [kind]


def test_an_unfinished_last_line_is_a_note(there: Place) -> None:
    """A crash, or a log that is being written, is not tampering; inside the log it is."""
    path = segment_files(there.folder)[-1][1]
    with path.open("ab") as file:
        file.write(b'{"seq":62,"key"')
    report = there.verify()
    assert report.ok
    assert "unfinished" in report.notes[0]


def test_archived_files_can_be_left_out(in_files: Place, tmp_path: Path) -> None:
    """With --since the log is verified from a later file on, whose signed end confirms it."""
    there = copied(in_files, tmp_path)
    (_, first), (second, _) = segment_files(there.folder)[:2]
    first.unlink()
    assert there.verify().findings[0].kind == "delete"
    report = there.verify(since=second)
    assert report.ok
    assert (report.first, report.signed) == (second, report.last)
    with pytest.raises(ConfigError, match="begins with record"):
        there.verify(since=second + 1)
    there.rewrite(edited(5))
    assert not there.verify(since=second).ok


def test_without_exported_checkpoints_the_report_says_what_it_cannot_see(there: Place) -> None:
    """The checkpoints beside the log count, with a warning that they can be cut with it."""
    report = verify(there.folder, there.keys)
    assert report.ok
    assert "could cut" in report.notes[0]


TAMPER: dict[str, Callable[[list[bytes], int, int], list[bytes]]] = {
    "edit": lambda ls, a, b: [*ls[:a], flipped(ls[a], b), *ls[a + 1 :]],
    "delete": lambda ls, a, _b: [*ls[:a], *ls[a + 1 :]],
    "insert": lambda ls, a, b: [*ls[:a], ls[b % len(ls)], *ls[a:]],
    "swap": lambda ls, a, b: swapped(ls, a, b % len(ls)),
    "cut": lambda ls, a, _b: ls[:a],
    "restamp": lambda ls, a, _b: forged(KEYS, a + 1)(ls),
}
KEYS = KeyRing({1: AuditKey(1, "", b"m" * 32, b"p" * 32, b"a" * 32, b"s" * 32)})  # not ours


def flipped(line: bytes, at: int) -> bytes:
    """The line with one bit changed, not into a newline."""
    at %= len(line)
    new = line[at] ^ (1 if line[at] ^ 1 != 10 else 2)
    return line[:at] + bytes([new]) + line[at + 1 :]


def swapped(lines: list[bytes], a: int, b: int) -> list[bytes]:
    """Two lines in each other's place."""
    lines = list(lines)
    lines[a], lines[b] = lines[b], lines[a]
    return lines


values = st.one_of(st.text(max_size=30), st.integers(-5, 2**40), st.booleans())
entries = st.builds(
    lambda event, outcome, details: record.entry(event, outcome=outcome, details=details),
    st.sampled_from(record.EVENTS),
    st.sampled_from(["ok", "refused", "NOT_FOUND"]),
    st.dictionaries(st.text(max_size=8), values, max_size=4),
)


@settings(max_examples=25, deadline=None)
@given(
    data=st.data(),
    written=st.lists(entries, min_size=3, max_size=40),
    size=st.sampled_from([4096, 1 << 20]),
    a=st.integers(0, 10_000),
    b=st.integers(0, 10_000),
)
def test_any_change_of_any_log_is_seen(
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
    written: list[record.Entry],
    size: int,
    a: int,
    b: int,
) -> None:
    """Random records, random files, every kind of change at a random place: never intact."""
    there = place(tmp_path_factory.mktemp("random"))
    log = there.open(segment_bytes=size)
    half = data.draw(st.integers(0, len(written)))
    for part in (written[:half], written[half:]):
        log.write(part)
        log.sync()
        log.checkpoint()
    log.close()
    lines, files = there.lines(), [path for _, path in segment_files(there.folder)]
    contents = [path.read_bytes() for path in files]
    for how, tamper in TAMPER.items():
        assert there.verify().ok, how
        changed = tamper(lines, a % len(lines), b)
        if changed != lines:  # else two equal places were swapped
            there.rewrite(lambda _, changed=changed: changed)  # type: ignore[misc]
            assert not there.verify().ok, how
        for path, content in zip(files, contents, strict=True):
            path.write_bytes(content)
