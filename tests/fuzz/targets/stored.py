"""Files that were written earlier: an audit log and its keys, image sets in Parquet and folders."""

import io
import json
import random
from collections.abc import Hashable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from guard import data as sets
from guard.data.scan import scan
from guard.errors import AuditError, ConfigError, InputError
from guard.gateway.audit import checkpoints, record, show
from guard.gateway.audit.checkpoints import MARK, PREFIX
from guard.gateway.audit.keys import AuditKey, KeyRing, load_keys
from guard.gateway.audit.record import ZERO, Entry
from guard.gateway.audit.segments import find_end, segment_name
from guard.gateway.audit.verify import verify
from tests.fuzz.mutate import mutate
from tests.fuzz.structure import change_json
from tests.fuzz.target import Target, demand
from tests.fuzz.targets.tokens import signer

LOG = "0123456789abcdef0123456789abcdef"
TIME = "2026-11-20T12:00:00.000000Z"
RECORDS = 6  # of the log; a checkpoint signs the last


def ring() -> KeyRing:
    """Keys that are the same in every run."""
    public = signer("audit").public_key().public_bytes_raw()
    seed = signer("audit").private_bytes_raw()
    return KeyRing({1: AuditKey(1, TIME, b"m" * 32, public, b"a" * 32, seed)})


def segment(keys: KeyRing) -> tuple[bytes, bytes]:
    """A log of a few records, and its last link."""
    lines, head = [], ZERO
    for number in range(1, RECORDS + 1):
        event = "log.begin" if number == 1 else "admin.call"
        details: dict[str, Any] = {"log": LOG} if number == 1 else {"rpc": "Status", "n": number}
        body = record.body(number, 1, Entry(TIME, event, "", "ok", json.dumps(details)))
        head = keys.link(1, head, body)
        lines.append(record.finish(body, head))
    return b"".join(lines), head


def signature(keys: KeyRing, head: bytes) -> bytes:
    """A checkpoint over all of it."""
    fields = {"checkpoint": 1, "log": LOG, "seq": RECORDS, "head": head.hex(), "time": TIME}
    signed = json.dumps({**fields, "key": 1}, separators=(",", ":")).encode()[:-1]
    return b'%b%b%b"}\n' % (signed, MARK, keys.sign(PREFIX + signed).hex().encode())


class Logs(Target):
    """One file of an audit log, by the first byte: log, checkpoints, exported checkpoints.

    A log that differs from the one that was signed must never be called intact.
    """

    name = "audit"
    errors = (AuditError, ConfigError)
    words = (b'"seq":', b'"key":', b'"link":"', b'"event":"log.segment"', b'"previous":"', b"\n")
    good = 3

    def __init__(self) -> None:
        super().__init__()
        self._keys = ring()
        self._log, head = segment(self._keys)
        self._signed = signature(self._keys, head)
        self._folder, self._export = self.folder / "log", self.folder / "export"
        self._folder.mkdir()
        self._export.mkdir()
        self._paths = (
            self._folder / segment_name(1),
            self._folder / checkpoints.NAME,
            self._export / checkpoints.NAME,
        )

    def seeds(self) -> list[bytes]:
        """Every file as it is."""
        return [bytes([at]) + data for at, data in enumerate((self._log, *[self._signed] * 2))]

    def mutate(self, data: bytes, rng: random.Random) -> bytes:
        """Another line, or whole lines moved."""
        lines = data[1:].split(b"\n")
        at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        if rng.random() < 0.5:
            lines[at], lines[other] = lines[other], lines[at]
        elif (changed := change_json(lines[at], rng)) is not None:
            lines[at] = changed.replace(b'": ', b'":').replace(b", ", b",")
        else:
            lines[at] = mutate(lines[at], rng, self.words, lines)
        return data[:1] + b"\n".join(lines)

    def run(self, data: bytes) -> Hashable:
        """Verify it, find its end, show it."""
        which = data[0] % 3 if data else 0
        for at, (path, whole) in enumerate(
            zip(self._paths, (self._log, self._signed, self._signed), strict=True)
        ):
            path.write_bytes(data[1:] if at == which else whole)
        report = verify(self._folder, self._keys, exported=self._export)
        list(report.lines())
        json.dumps(report.record())
        changed = data[1:] != self._log and not data[1:].startswith(self._log)
        demand(which or not changed or not report.ok, "a changed log is called intact")
        ending = find_end(self._folder, self._keys)
        demand(ending.seq <= RECORDS, "more records than were written")
        for one in show.records(self._folder, since="2026"):
            demand(show.plain(one).isprintable(), "a record that could steer a terminal")
        return which, report.ok, tuple(sorted({one.kind for one in report.findings}))


class AuditKeys(Target):
    """The file of an audit log's keys."""

    name = "audit-keys"
    errors = (ConfigError,)
    good = 1

    def seeds(self) -> list[bytes]:
        """A good one."""
        key = ring().current
        entry = {"id": 1, "made": TIME, "mac": key.mac.hex(), "public": key.public.hex()}
        full = {**entry, "actor": "61" * 32, "seed": key.seed.hex() if key.seed else ""}
        return [
            json.dumps({"format": "guard-audit-keys-1", "keys": [one]}).encode()
            for one in (full, entry)
        ]

    def mutate(self, data: bytes, rng: random.Random) -> bytes | None:
        """Another value."""
        return change_json(data, rng)

    def run(self, data: bytes) -> Hashable:
        """Load it and use it."""
        path = self.folder / "keys"
        path.write_bytes(data)
        path.chmod(0o600)
        keys = load_keys(path)
        keys.link(keys.current.id, ZERO, b"x")
        keys.signed(1, b"x", bytes(64))
        if keys.current.seed is not None:
            keys.sign(b"x")
        if all(key.actor for key in keys.keys.values()):
            keys.actor("alice")
        return len(keys.keys), keys.current.seed is None


class ImageSets(Target):
    """A Parquet file of pictures, read for training and looked over by `guard data check`."""

    name = "parquet"
    errors = (InputError,)
    words = (b"PAR1", b"huggingface", b"image", b"label", b"track", b"bytes", b"\x89PNG\r\n\x1a\n")
    good = 3

    def seeds(self) -> list[bytes]:
        """Small files in three encodings."""
        return [_parquet(codec) for codec in ("none", "snappy", "zstd")]

    def run(self, data: bytes) -> Hashable:
        """Read it both ways."""
        path = self.folder / "set.parquet"
        path.write_bytes(data)
        refusal: InputError | None = None
        try:
            images = sets.read(path, size=(8, 8))
            demand(images.images.shape[1:3] == (8, 8), "pictures of another size")
            demand(len(images) == len(images.labels), "pictures without labels")
        except InputError as error:
            refusal = error
        found = scan(path)
        demand(len(found.rows) == len(found.pictures.labels), "rows without labels")
        if refusal:
            raise refusal
        return len(found), len(found.broken), len(found.pictures.classes)


def _parquet(codec: str) -> bytes:
    """Three pictures, labels and tracks."""
    rows = []
    for shade in (0, 100, 200):
        file = io.BytesIO()
        Image.fromarray(np.full((8, 8, 3), shade, np.uint8)).save(file, "PNG")
        rows.append({"bytes": file.getvalue(), "path": None})
    names = {"info": {"features": {"label": {"names": ["a", "b", "c"]}}}}
    image = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    table = pa.table({"image": image, "label": pa.array([0, 1, 2]), "track": pa.array([5, 5, 6])})
    table = table.replace_schema_metadata({"huggingface": json.dumps(names)})
    out = io.BytesIO()
    pq.write_table(table, out, compression=codec)
    return out.getvalue()
