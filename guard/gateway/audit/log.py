"""The audit log on disk: append, link, make durable, rotate, sign. One thread, one process.

What `write` has taken is in the file; what `sync` has returned from survives a power cut. A write
or a sync that fails takes everything since the last sync back out of the file, so that the log
always ends with a whole record.
"""

import fcntl
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from guard.durable import sync_folder
from guard.errors import AuditError, ConfigError
from guard.gateway.audit import checkpoints, record, segments
from guard.gateway.audit.checkpoints import CheckpointFile, write_all
from guard.gateway.audit.keys import KeyRing
from guard.gateway.audit.record import ZERO, Entry, entry

MAX_UNEXPORTED = 10_000


class Point(NamedTuple):
    """A place in the log: its last record, that record's link, and the bytes of the file so far."""

    seq: int
    head: bytes
    offset: int


class AuditLog:
    """The log in one folder, opened for writing.

    Raises `ConfigError` where another process writes it, `AuditError` where its end was altered
    or cut and `damaged` does not say "allow".
    """

    def __init__(
        self,
        folder: Path,
        keys: KeyRing,
        *,
        export: Path | None = None,
        segment_bytes: int = 16 << 20,
        damaged: str = "block",
    ) -> None:
        self._folder, self._keys, self._segment_bytes = folder, keys, segment_bytes
        self._local = CheckpointFile(folder)
        self._export = CheckpointFile(export) if export is not None else None
        self._unexported: list[bytes] = []
        self._fd, self._dirty, self.files_begun, self._first_seq = -1, False, 0, 1
        self._at = self._synced = self._pending = Point(0, ZERO, 0)
        self._number, self._signed, self.id = 0, 0, ""
        for place in (folder, export):
            if place is not None:
                place.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _lock(folder)
        try:
            self._resume(damaged)
        except BaseException:
            os.close(self._lock)
            raise

    @property
    def seq(self) -> int:
        """The number of the last record."""
        return self._at.seq

    @property
    def signed(self) -> int:
        """The number of the last record that a checkpoint covers."""
        return self._signed

    def write(self, entries: Sequence[Entry]) -> None:
        """Append records; OSError, and nothing since the last sync is kept, where that fails."""
        lines: list[bytes] = []
        try:
            if self._dirty:
                self._take_back()
            at = self._at
            for what in entries:
                line, at = self._next(at, what)
                if at.offset > self._segment_bytes and self._first_seq < at.seq - 1:
                    self._flush(lines)
                    lines = []
                    self._rotate(what.time)
                    line, at = self._next(self._at, what)
                lines.append(line)
                self._pending = at
            self._flush(lines)
        except OSError:
            self._take_back()
            raise

    def sync(self) -> None:
        """Make everything written durable; OSError, and it is taken back, where that fails."""
        if self._at == self._synced:
            return
        try:
            os.fdatasync(self._fd)
        except OSError:
            self._take_back()
            raise
        self._synced = self._at

    def checkpoint(self) -> None:
        """Sign the durable part of the log; OSError where the signature cannot be exported yet."""
        if self._synced.seq > self._signed:
            line = checkpoints.sign(
                self._keys,
                number=self._number + 1,
                log=self.id,
                seq=self._synced.seq,
                head=self._synced.head,
            )
            self._local.append([line])
            self._number, self._signed = self._number + 1, self._synced.seq
            self._unexported = [*self._unexported, line][-MAX_UNEXPORTED:]
        if self._export is not None and self._unexported:
            self._export.append(self._unexported)
        self._unexported = []

    def close(self) -> None:
        """Let go of the files."""
        for descriptor in (self._fd, self._lock):
            os.close(descriptor)

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _next(self, at: Point, what: Entry) -> tuple[bytes, Point]:
        number = self._keys.current.id
        linked = record.body(at.seq + 1, number, what)
        link = self._keys.link(number, at.head, linked)
        line = record.finish(linked, link)
        return line, Point(at.seq + 1, link, at.offset + len(line))

    def _flush(self, lines: list[bytes]) -> None:
        if lines:
            write_all(self._fd, b"".join(lines))
            self._at = self._pending

    def _rotate(self, time: str) -> None:
        """Go on in a new file, whose first record holds the last link of the old one."""
        self.sync()
        previous, old = self._synced, (self._fd, self._first_seq)
        first = previous.seq + 1
        details = {"log": self.id, "previous": previous.head.hex()}
        begin = entry("log.segment", details=details)._replace(time=time)
        line, at = self._next(previous._replace(offset=0), begin)
        path = self._folder / segments.segment_name(first)
        descriptor = _new_file(path)
        try:
            write_all(descriptor, line)
            os.fsync(descriptor)
            sync_folder(self._folder)
        except OSError:
            os.close(descriptor)
            path.unlink()
            raise
        os.close(old[0])
        self._fd, self._first_seq, self.files_begun = descriptor, first, self.files_begun + 1
        self._at = self._synced = self._pending = at

    def _take_back(self) -> None:
        """The file as of the last sync; where even that fails, the next write tries again."""
        self._at = self._pending = self._synced
        self._dirty = True
        os.ftruncate(self._fd, self._synced.offset)
        self._dirty = False

    def _resume(self, damaged: str) -> None:
        ending = segments.find_end(self._folder, self._keys)
        known = [one.last(ending.log) for one in (self._local, self._export) if one and ending.log]
        signed = [one for one in known if one is not None and one.holds(self._keys)]
        problem = ending.problem or _contradiction(ending, signed) or self._emptied(ending)
        if problem and damaged != "allow":
            raise AuditError(
                f"the audit log in {self._folder} was altered or cut: {problem}; "
                "see `guard audit verify`"
            )
        self._number = max((one.number for one in signed), default=0)
        self._signed = max((one.seq for one in signed), default=0)
        found: list[Entry] = []
        if problem:
            found.append(entry("log.damaged", outcome="failed", details={"what": problem}))
            ending = self._beyond(ending)
        else:
            if ending.torn:
                details = segments.set_aside(self._folder, ending)
                found.append(entry("log.torn", outcome="failed", details=details))
            segments.drop_unbegun(self._folder, ending)
        self._open(ending, found)
        self._catch_up()

    def _open(self, ending: segments.Ending, found: list[Entry]) -> None:
        """Take up the last file, or begin one; write what was found."""
        self.id = ending.log or secrets.token_hex(16)
        self._at = self._synced = self._pending = Point(ending.seq, ending.head, ending.offset)
        if ending.path is not None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(ending.path, flags)
            self._first_seq = ending.seq - len(ending.links) + 1
        else:
            self._first_seq = ending.seq + 1
            self._fd = _new_file(self._folder / segments.segment_name(self._first_seq))
            sync_folder(self._folder)
            details = {"log": self.id}
            if ending.seq:
                details["previous"] = ending.head.hex()
            event = "log.segment" if ending.seq else "log.begin"
            found = [entry(event, details=details), *found]
        try:
            self.write(found)
            self.sync()
        except OSError as error:
            os.close(self._fd)
            raise AuditError(f"the audit log cannot be written: {error.strerror}") from error

    def _beyond(self, ending: segments.Ending) -> segments.Ending:
        """A new file after everything there is: what was altered stays to be looked at."""
        names = [number for number, _ in segments.segment_files(self._folder)]
        seq = max([ending.seq, self._signed, *names])
        return segments.Ending(seq=seq, head=ending.head, log=ending.log)

    def _emptied(self, ending: segments.Ending) -> str:
        """What is wrong with a folder that has checkpoints and no log."""
        exported = self._export.lines() if self._export else []
        read = [checkpoints.read(line) for line in (*self._local.lines(), *exported)]
        if ending.seq == 0 and any(one and one.holds(self._keys) for one in read):
            return "there are checkpoints, but not a single record"
        return ""

    def _catch_up(self) -> None:
        """Export what an earlier run signed and could not export."""
        if self._export is None:
            return
        last = self._export.last(self.id)
        for line in self._local.lines():
            one = checkpoints.read(line)
            if one and one.log == self.id and last and one.number > last.number:
                self._unexported.append(line)


def _contradiction(ending: segments.Ending, signed: Sequence[checkpoints.Checkpoint]) -> str:
    """How the log's end differs from what was signed."""
    for one in signed:
        if one.seq > ending.seq:
            return f"it ends at record {ending.seq}, and record {one.seq} was signed"
        if ending.links.get(one.seq, one.head) != one.head:
            return f"record {one.seq} is not the one that was signed"
    return ""


def _new_file(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
    return os.open(path, flags, 0o600)


def _lock(folder: Path) -> int:
    """Hold the folder until the process ends."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(folder / "lock", flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        message = f"gateway.audit.folder: another gateway writes the audit log in {folder}"
        raise ConfigError(message, key="gateway.audit.folder") from error
    return descriptor
