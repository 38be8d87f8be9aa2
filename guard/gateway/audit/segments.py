"""The files of a log, and how the end of one is found again after a crash."""

import hashlib
import hmac
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from guard.durable import sync_folder
from guard.errors import AuditError
from guard.gateway.audit.keys import KeyRing
from guard.gateway.audit.record import ZERO, content, take_apart

NAME = re.compile(r"segment-(\d{15})\.jsonl")
FIRST = ("log.begin", "log.segment")


def segment_name(first: int) -> str:
    """The file whose first record has this number."""
    return f"segment-{first:015d}.jsonl"


def segment_files(folder: Path) -> list[tuple[int, Path]]:
    """The log's files in order, each with the number its name claims."""
    found = ((NAME.fullmatch(path.name), path) for path in folder.iterdir())
    files = ((int(match[1]), path) for match, path in found if match)
    return sorted(one for one in files if one[1].is_file() and not one[1].is_symlink())


@dataclass
class Ending:
    """Where a log goes on: what its last file says, each record verified."""

    path: Path | None = None
    offset: int = 0  # bytes of verified records in `path`
    seq: int = 0
    head: bytes = ZERO
    log: str = ""
    links: dict[int, bytes] = field(default_factory=dict)  # of the last file
    torn: bytes = b""  # what a crash left behind the last record
    problem: str = ""  # what no crash explains


def find_end(folder: Path, keys: KeyRing) -> Ending:
    """The end of the log in a folder; files that a crash left without a record are passed over.

    Only the last file is read whole: `guard audit verify` is for the rest.
    """
    files = segment_files(folder)
    torn = b""
    while files:
        number, path = files.pop()
        ending = _read(path, keys)
        if ending.seq or ending.problem:
            ending.torn += torn
            if ending.seq and ending.seq - len(ending.links) + 1 != number:
                ending.problem = ending.problem or f"{path.name} holds other records than its name"
            return ending
        torn = ending.torn + torn
    return Ending(torn=torn)


def _read(path: Path, keys: KeyRing) -> Ending:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AuditError(f"the audit log cannot be read: {error.strerror}") from error
    ending = Ending(path)
    for line in data.split(b"\n")[:-1]:
        record = take_apart(line)
        if record is None or record.key not in keys.keys:
            break
        if ending.seq == 0 and not _begin(ending, line, record.event):
            break
        expected = keys.link(record.key, ending.head, record.body)
        if not hmac.compare_digest(expected, record.link) or (
            ending.seq and record.seq != ending.seq + 1
        ):
            break
        ending.seq, ending.head = record.seq, record.link
        ending.links[record.seq] = record.link
        ending.offset += len(line) + 1
    rest = data[ending.offset :]
    if b"\n" in rest and b"\0" not in rest:  # whole lines, no hole of a power cut: not a crash
        ending.problem = f"{path.name}: what follows record {ending.seq} is not what was written"
    ending.torn = rest
    return ending


def _begin(ending: Ending, line: bytes, event: str) -> bool:
    """Take the log's id, and the link before, from the first record of a file."""
    if event not in FIRST:
        return False
    try:
        details = content(line)["details"]
        ending.log = str(details["log"])
        ending.head = bytes.fromhex(details["previous"]) if event == "log.segment" else ZERO
    except (ValueError, KeyError, TypeError):
        return False
    return True


def set_aside(folder: Path, ending: Ending) -> dict[str, str | int]:
    """Move what a crash left unfinished into a file of its own; the details to record about it."""
    digest = hashlib.sha256(ending.torn).hexdigest()
    name = f"torn-{ending.seq + 1:015d}-{digest[:8]}.bin"
    descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "wb") as kept:
        kept.write(ending.torn)
        kept.flush()
        os.fsync(kept.fileno())
    sync_folder(folder)
    if ending.path is not None and ending.path.exists():
        with ending.path.open("r+b") as cut:
            cut.truncate(ending.offset)
            os.fsync(cut.fileno())
    return {"bytes": len(ending.torn), "sha256": digest, "file": name}


def drop_unbegun(folder: Path, ending: Ending) -> None:
    """Remove files that a crash left without a record; what they held is set aside already."""
    for number, path in segment_files(folder):
        if number > ending.seq:
            path.unlink()
    sync_folder(folder)
