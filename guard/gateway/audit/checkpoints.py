"""Signed checkpoints: so far went the log, and this was its head.

One line of JSON each, appended to `checkpoints.jsonl` beside the log and in the export folder,
which somebody ships to where nobody can change it:

    {"checkpoint":3,"log":"<32 hex>","seq":3000,"head":"<64 hex>","time":"…Z","key":1,
     "signature":"<128 hex>"}

The Ed25519 signature covers PREFIX and every byte before `,"signature"`.
"""

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from guard.durable import sync_folder
from guard.gateway.audit.keys import KeyRing
from guard.gateway.audit.record import now

NAME = "checkpoints.jsonl"
PREFIX = b"guard audit checkpoint 1\n"
MARK = b',"signature":"'
MAX_LINE = 1024


class Checkpoint(NamedTuple):
    """A checkpoint as its line tells it; nothing in it is checked yet."""

    number: int
    log: str
    seq: int
    head: bytes
    time: str
    key: int
    signed: bytes
    signature: bytes

    def holds(self, keys: KeyRing) -> bool:
        """Whether one of our keys signed it."""
        return keys.signed(self.key, PREFIX + self.signed, self.signature)


def sign(keys: KeyRing, *, number: int, log: str, seq: int, head: bytes) -> bytes:
    """The line of a new checkpoint."""
    fields = {"checkpoint": number, "log": log, "seq": seq, "head": head.hex(), "time": now()}
    signed = json.dumps({**fields, "key": keys.current.id}, separators=(",", ":")).encode()[:-1]
    signature = keys.sign(PREFIX + signed).hex().encode()
    return b'%b%b%b"}\n' % (signed, MARK, signature)


def read(line: bytes) -> Checkpoint | None:
    """A line, with or without its newline, as a checkpoint; None where it is none."""
    signed, mark, rest = line.rstrip(b"\n").partition(MARK)
    if not mark or not rest.endswith(b'"}') or len(line) > MAX_LINE:
        return None
    try:
        fields = json.loads(signed + b"}")
        numbers = [fields[name] for name in ("checkpoint", "seq", "key")]
        texts = [fields[name] for name in ("log", "head", "time")]
        if not all(type(n) is int for n in numbers) or not all(type(t) is str for t in texts):
            return None
        head, signature = bytes.fromhex(texts[1]), bytes.fromhex(rest[:-2].decode("ascii"))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    number, seq, key = numbers
    return Checkpoint(number, texts[0], seq, head, texts[2], key, signed, signature)


class CheckpointFile:
    """`checkpoints.jsonl` of one folder, written durably, line by line."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME

    def lines(self) -> list[bytes]:
        """Every whole line."""
        try:
            return [line + b"\n" for line in self.path.read_bytes().split(b"\n")[:-1]]
        except FileNotFoundError:
            return []

    def last(self, log: str) -> Checkpoint | None:
        """The newest checkpoint of this log."""
        found = (read(line) for line in reversed(self.lines()))
        return next((one for one in found if one is not None and one.log == log), None)

    def append(self, lines: Sequence[bytes]) -> None:
        """Add these lines, or none of them and OSError."""
        new = not self.path.exists()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o600)
        try:
            size = self._trimmed(descriptor)
            try:
                write_all(descriptor, b"".join(lines))
                os.fsync(descriptor)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
        if new:
            sync_folder(self.path.parent)

    def _trimmed(self, descriptor: int) -> int:
        """The file's size once an unfinished line at its end is gone: it will be written again."""
        size = os.fstat(descriptor).st_size
        tail = os.pread(descriptor, MAX_LINE, max(0, size - MAX_LINE))
        if tail and not tail.endswith(b"\n"):
            size -= len(tail) - (tail.rfind(b"\n") + 1)
            os.ftruncate(descriptor, size)
        return size


def write_all(descriptor: int, data: bytes) -> None:
    """All of it: a full disk may show as a short write without an error."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
