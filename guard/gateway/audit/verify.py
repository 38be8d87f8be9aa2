"""Verifying a log: the chain record by record, its files, and the checkpoints that were signed.

What it can say: every change, by whoever has no keys; and every change and every cut up to the last
checkpoint in a place that the changer could not reach, whoever it was. What it cannot: that records
after the last exported checkpoint were cut off.
"""

import hmac
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from guard.errors import AuditError, ConfigError
from guard.gateway.audit import checkpoints, suspicion
from guard.gateway.audit.checkpoints import Checkpoint
from guard.gateway.audit.keys import KeyRing
from guard.gateway.audit.record import HEAD, TAIL, ZERO, content, take_apart
from guard.gateway.audit.segments import segment_files


class Finding(NamedTuple):
    """Something that no honest run leaves behind."""

    kind: str  # edit, delete, insert, reorder, re-stamp, truncate, swap, replay, forge, wrong key
    where: str
    record: int | None
    text: str


@dataclass
class Report:
    """What a verification saw; `ok` when nothing was changed."""

    records: int = 0
    segments: int = 0
    checkpoints: int = 0
    first: int = 0
    last: int = 0
    signed: int = 0  # the last record that a checkpoint covers
    log: str = ""
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the log is as it was written."""
        return not self.findings

    def record(self) -> dict[str, Any]:
        """For a program."""
        plain = {name: getattr(self, name) for name in ("records", "segments", "checkpoints")}
        plain |= {name: getattr(self, name) for name in ("first", "last", "signed", "log", "notes")}
        return {"ok": self.ok, **plain, "findings": [one._asdict() for one in self.findings]}

    def lines(self) -> Iterator[str]:
        """For a person; the first bad record first."""
        for one in self.findings:
            at = f" record {one.record}" if one.record else ""
            yield f"{one.kind.upper()}: {one.where}{at}: {one.text}"
        yield from (f"note: {text}" for text in self.notes)
        state = "intact" if self.ok else "NOT INTACT"
        yield (
            f"{state}: records {self.first} to {self.last} in {self.segments} files, "
            f"{self.checkpoints} checkpoints, signed up to record {self.signed}"
        )


def verify(
    folder: Path, keys: KeyRing, *, exported: Path | None = None, since: int | None = None
) -> Report:
    """Verify the log in a folder.

    exported: folder of the checkpoints that were kept elsewhere. since: the log's files up to this
    record's were archived, its file is the first to look at. Raises `ConfigError` for a folder
    without a log, `AuditError` for one that cannot be read.
    """
    try:
        files = segment_files(folder)
        signed = list(_signed_lines(folder, exported))
    except OSError as error:
        raise AuditError(f"{error.filename}: {error.strerror}") from error
    if not files and not signed:
        raise ConfigError(f"{folder} holds no audit log", key="folder")
    report = Report(segments=len(files))
    walk = Walk(keys, report, {one.seq for _, _, one in signed if one is not None})
    walk.through(files, since)
    _check_signed(report, walk, signed, keys)
    if exported is None:
        report.notes.append(
            "only the checkpoints beside the log were looked at: whoever could change it could cut"
            " both; give --checkpoints with those kept elsewhere"
        )
    if report.last > report.signed and report.ok:
        report.notes.append(f"records after {report.signed} are not covered by a checkpoint yet")
    return report


class Walk:
    """One pass over the records, up to the first that is not as it was written."""

    def __init__(self, keys: KeyRing, report: Report, wanted: set[int]) -> None:
        self._keys, self._report, self._wanted = keys, report, wanted
        self.links: dict[int, bytes] = {}  # of the wanted records, as hex
        self.whole = True  # until the first finding
        self._head, self._next, self._key, self._time = ZERO, 1, 1, b""

    def through(self, files: list[tuple[int, Path]], since: int | None) -> None:
        """All files, in order."""
        if since is not None:
            files = [(number, path) for number, path in files if number >= since]
            self._report.segments = len(files)
            if not files or files[0][0] != since:
                raise ConfigError(f"no file of the log begins with record {since}", key="since")
            self._skip_to(since, files[0][1])
        self._report.first = self._next
        for index, (number, path) in enumerate(files):
            *lines, rest = path.read_bytes().split(b"\n")
            self._place(number, path, lines, {first for first, _ in files})
            bad = self._lines(lines) if self.whole else None
            if bad is not None:
                self._explain(lines, bad, path, files[index + 1 :])
            if rest and self.whole:
                self._unfinished(path, rest, last=index == len(files) - 1)
            if not self.whole:
                break

    def _skip_to(self, since: int, path: Path) -> None:
        """Begin at a later file: the link before it stands in its first record."""
        with path.open("rb") as file:
            line = file.readline().rstrip(b"\n")
        record = take_apart(line)
        try:
            self._head = bytes.fromhex(content(line)["details"]["previous"])
        except (ValueError, KeyError, TypeError):
            self._find(("edit", "it does not begin as files of a log do"), path)
        self._next, self._key = since, record.key if record else 1
        self._report.notes.append(f"records before {since} are taken as archived, not verified")

    def _lines(self, lines: list[bytes]) -> int | None:
        """The index of the first line that is not the next record, None where all are.

        This loop is what a million records cost: no calls but those that it needs.
        """
        head, number, key, time = self._head, self._next, self._key, self._time
        macs = {n: one.mac for n, one in self._keys.keys.items()}
        wanted, digest, match = self._wanted, hmac.digest, HEAD.match
        mac, bad, back = macs.get(key, b""), None, 0
        for index, line in enumerate(lines):
            found = match(line)
            if found is None or int(found[1]) != number:
                bad = index
                break
            if (stamped := int(found[2])) != key:
                if stamped < key or stamped not in macs:
                    bad = index
                    break
                key, mac = stamped, macs[stamped]
            link = digest(mac, head + line[:-TAIL], "sha256")
            if line[-TAIL:] != b',"link":"' + link.hex().encode() + b'"}':
                bad = index
                break
            if found[3] < time:
                back = number
            head, time = link, found[3]
            if number in wanted:
                self.links[number] = link
            number += 1
        if not self._report.log and lines and number > self._next:
            self._report.log = str(content(lines[0])["details"].get("log", ""))
        if back:
            self._report.notes.append(f"the clock was set back before record {back}")
        self._report.records += number - self._next
        self._report.last = number - 1
        self._head, self._next, self._key, self._time = head, number, key, time
        return bad

    def _explain(
        self, lines: list[bytes], bad: int, path: Path, later: list[tuple[int, Path]]
    ) -> None:
        """The first bad record, and what it looks like."""
        following = [line for _, file in later for line in file.read_bytes().split(b"\n")[:-1]]
        broken = suspicion.Break(lines, bad, following, self._head, self._next, self._key)
        self._find(suspicion.what(broken, self._keys), path)

    def _place(self, number: int, path: Path, lines: list[bytes], names: set[int]) -> None:
        """Whether a file is the one that is due, by its name and its first record."""
        first = take_apart(lines[0]) if lines else None
        if number == self._next and first and first.seq != number and first.seq in names:
            self._find(("swap", f"it holds record {first.seq} first: files were swapped"), path)
        elif number > self._next:
            text = f"records {self._next} to {number - 1} are missing: a file was deleted or cut"
            self._find(("delete", text), path)
        elif number < self._next:
            self._find(("insert", "this file does not belong here"), path)

    def _unfinished(self, path: Path, rest: bytes, *, last: bool) -> None:
        if last:
            text = f"{path.name} ends with an unfinished line of {len(rest)} bytes: "
            self._report.notes.append(text + "a crash, or it is being written")
        else:
            self._find(("edit", "an unfinished line inside the log"), path)

    def _find(self, found: tuple[str, str], path: Path) -> None:
        self.whole = False
        self._report.findings.append(Finding(found[0], path.name, self._next, found[1]))


Signed = tuple[str, int, Checkpoint | None]


def _signed_lines(folder: Path, exported: Path | None) -> Iterator[Signed]:
    """Every checkpoint there is: its file, its line, and what it says if it can be read."""
    own = folder / checkpoints.NAME
    places = [own] if own.exists() else []
    if exported is not None:
        names = [exported] if exported.is_file() else sorted(exported.glob("*.jsonl"))
        if not names:
            raise ConfigError(f"{exported} holds no checkpoints", key="checkpoints")
        places += names
    for path in places:
        for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
            yield str(path), number, checkpoints.read(line)  # what is unfinished counts for nothing


def _check_signed(report: Report, walk: Walk, signed: list[Signed], keys: KeyRing) -> None:
    """Every checkpoint on its own, in its order, and against the log."""
    file, number, seq = "", 0, 0
    seen = set()
    for path, line, one in signed:
        where = f"{path}:{line}"
        if path != file:
            file, number, seq = path, 0, 0
        if one is None:
            text = "this is no checkpoint"
            report.findings.append(Finding("forge", where, None, text))
            continue
        found = _wrong(one, keys, report, number, seq) or _differs(one, walk, report)
        if found:
            report.findings.append(Finding(found[0], where, one.seq, found[1]))
            number += one.number == number + 1
            continue
        if number and one.number > number + 1:
            text = f"checkpoints {number + 1} to {one.number - 1} are missing"
            report.findings.append(Finding("delete", where, one.seq, text))
        number, seq = one.number, one.seq
        seen.add(one.signed)
        report.checkpoints = len(seen)
        report.signed = max(report.signed, one.seq if walk.links.get(one.seq) else 0)


def _wrong(
    one: Checkpoint, keys: KeyRing, report: Report, number: int, seq: int
) -> tuple[str, str] | None:
    """What is wrong with a checkpoint, whatever the log says."""
    if not one.holds(keys):
        return "forge", f"checkpoint {one.number} was not signed with a key of this log"
    if report.log and one.log != report.log:
        return "replay", f"checkpoint {one.number} is of another log"
    if one.number <= number or one.seq <= seq:
        return "replay", f"checkpoint {one.number} comes after {number}: an old one, put in again"
    return None


def _differs(one: Checkpoint, walk: Walk, report: Report) -> tuple[str, str] | None:
    """How the log differs from what was signed; nothing where the log cannot be followed so far."""
    link = walk.links.get(one.seq)
    if link is not None and link != one.head:
        return "re-stamp", "the chain holds, but this is not the record that was signed"
    if link is None and walk.whole and one.seq > report.last:
        return "truncate", f"this record was signed, but the log ends at record {report.last}"
    return None
