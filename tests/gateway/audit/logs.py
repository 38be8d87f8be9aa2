"""Small audit logs for the tests, and hands that change them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from guard.gateway.audit.checkpoints import NAME
from guard.gateway.audit.keys import KeyRing, make_keys
from guard.gateway.audit.log import AuditLog
from guard.gateway.audit.record import Entry, entry
from guard.gateway.audit.segments import segment_files
from guard.gateway.audit.verify import Report, verify

Change = Callable[[list[bytes]], list[bytes]]


@dataclass(frozen=True)
class Place:
    """A log, its export and its keys."""

    root: Path
    keys: KeyRing

    @property
    def folder(self) -> Path:
        """Where the log is."""
        return self.root / "log"

    @property
    def export(self) -> Path:
        """Where its checkpoints go."""
        return self.root / "export"

    def open(self, *, segment_bytes: int = 4096, damaged: str = "block") -> AuditLog:
        """The log, for writing."""
        return AuditLog(
            self.folder,
            self.keys,
            export=self.export,
            segment_bytes=segment_bytes,
            damaged=damaged,
        )

    def verify(self, **options: int) -> Report:
        """A verification against the exported checkpoints."""
        return verify(self.folder, self.keys, exported=self.export, **options)  # type: ignore[arg-type]

    def verify_alone(self) -> Report:
        """A verification of the log without its export."""
        return verify(self.folder, self.keys)

    def lines(self) -> list[bytes]:
        """Every line of the log, without newlines."""
        files = segment_files(self.folder)
        return [line for _, path in files for line in path.read_bytes().split(b"\n")[:-1]]

    def rewrite(self, change: Change) -> None:
        """Change the lines, each file keeping as many of the first ones as it had."""
        files = [path for _, path in segment_files(self.folder)]
        counts = [path.read_bytes().count(b"\n") for path in files]
        lines = change(self.lines())
        for index, (path, count) in enumerate(zip(files, counts, strict=True)):
            mine = lines if index == len(files) - 1 else lines[:count]
            lines = lines[len(mine) :]
            path.write_bytes(b"".join(line + b"\n" for line in mine))

    def exported(self) -> list[bytes]:
        """The exported checkpoints."""
        return (self.export / NAME).read_bytes().split(b"\n")[:-1]

    def export_again(self, lines: Sequence[bytes]) -> None:
        """Put these in the place of the exported checkpoints."""
        (self.export / NAME).write_bytes(b"".join(line + b"\n" for line in lines))


def place(root: Path) -> Place:
    """An empty place with new keys."""
    root.mkdir(parents=True, exist_ok=True)
    return Place(root, make_keys(root / "keys"))


def call(number: int, subject: str = "") -> Entry:
    """One administrative act."""
    return entry("admin.call", actor=subject, details={"rpc": "Status", "n": number})


def written(
    root: Path, count: int = 60, *, every: int = 20, segment_bytes: int = 1 << 20, tail: int = 0
) -> Place:
    """A log of about `count` records, a checkpoint `every` so many, and `tail` more after that."""
    there = place(root)
    log = there.open(segment_bytes=segment_bytes)
    for start in range(0, count, every):
        log.write([call(n) for n in range(start, min(start + every, count))])
        log.sync()
        log.checkpoint()
    log.write([call(count + n) for n in range(tail)])
    log.sync()
    log.close()
    return there
