"""Suspects as one Parquet file in the Hugging Face image layout, which `guard.data.read` reads.

`image` is a PNG of 8 bits, `label` what reviewers agreed on. Where a PNG is not the picture bit for
bit, `pixels` holds it too: little-endian float32 of `shape`. Needs pyarrow (guard[train]).
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from guard.errors import InputError
from guard.suspects.record import Floats, Row, Suspect

CLASSES = ("benign", "adversarial", "unlabelled")  # of the column `label`
AT_ONCE = 256  # rows in memory
NOTES = b"guard"  # the key of our own metadata, as `guard.data.write` has it


class Exported(Protocol):
    """A suspect in full, with its row."""

    @property
    def row(self) -> Row:
        """What the index knows."""

    @property
    def suspect(self) -> Suspect:
        """What is sealed."""


def png(image: Floats) -> tuple[bytes, bool]:
    """A PNG of (C, H, W) in [0, 1], and whether it is the picture bit for bit.

    More than three channels are shown by the first three, two by the first.
    """
    from PIL import Image

    shown = image[:3] if len(image) >= 3 else image[:1]
    pixels: NDArray[np.uint8] = np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8)
    exact = len(shown) == len(image) and bool(
        (pixels.astype(np.float32) / np.float32(255) == shown).all()
    )
    file = io.BytesIO()
    Image.fromarray(pixels[0] if len(shown) == 1 else pixels.transpose(1, 2, 0)).save(file, "PNG")
    return file.getvalue(), exact


def write_private(path: Path, data: bytes) -> None:
    """A file, whole or not at all, that its owner alone may read. InputError where it cannot be."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(_new(part), "wb") as file:
            file.write(data)
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise InputError(f"{path}: {error.strerror or 'cannot be written'}") from error


def _new(part: Path) -> int:
    part.unlink(missing_ok=True)
    return os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


def write_export(path: Path, exported: Iterable[Exported], notes: Mapping[str, Any]) -> int:
    """Write one file, whole or not at all, readable by its owner alone; how many are in it.

    notes: where it comes from, for the file's metadata. InputError where nothing came or the file
    cannot be written.
    """
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise InputError("exporting needs pyarrow: pip install 'guard[train]'") from error
    part = path.with_name(path.name + ".part")
    count, waiting = 0, []
    schema = _schema(notes)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _new(part)
        try:
            with os.fdopen(descriptor, "wb") as file, pq.ParquetWriter(file, schema) as writer:
                for one in exported:
                    waiting.append(_columns(one.row, one.suspect))
                    count += 1
                    if len(waiting) == AT_ONCE:
                        writer.write_table(_table(waiting, schema))
                        waiting = []
                if waiting:
                    writer.write_table(_table(waiting, schema))
            if count:
                part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or 'cannot be written'}") from error
    if not count:
        raise InputError("no suspect to export")
    return count


def _table(rows: Sequence[Mapping[str, Any]], schema: Any) -> Any:
    import pyarrow as pa

    return pa.Table.from_pylist(list(rows), schema=schema)


def _columns(row: Row, suspect: Suspect) -> dict[str, Any]:
    data, exact = png(suspect.image)
    verdict, agreed = suspect.verdict, row.label if row.label in CLASSES else CLASSES[-1]
    return {
        "image": {"bytes": data, "path": f"{row.id}.png"},
        "label": CLASSES.index(agreed),
        "id": row.id,
        "taken": row.taken,
        "model": row.model,
        "pack": row.pack,
        "tenant": row.tenant,
        "client": row.client,
        "sampled": row.sampled,
        "seen": row.seen,
        "state": row.state,
        "decision": verdict.decision.name,
        "p_value": _number(verdict.p_value),
        "predicted": verdict.label,
        "alarms": list(suspect.alarms),
        "budget": suspect.budget,
        "scores": [
            {"name": name, "value": _number(value), "p_value": _number(verdict.p_values[name])}
            for name, value in verdict.scores.items()
        ],
        "reviews": [
            {"reviewer": one.reviewer, "label": one.label, "at": one.at, "source": one.source}
            for one in row.reviews
        ],
        "evidence": suspect.evidence.tolist(),
        "probabilities": suspect.probabilities.tolist(),
        "upstream": None if suspect.upstream is None else suspect.upstream.tolist(),
        "shape": list(suspect.image.shape),
        "pixels": None if exact else suspect.image.astype("<f4").tobytes(),
        "trace": suspect.trace,
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _schema(notes: Mapping[str, Any]) -> Any:
    """The columns, told to Arrow and to `datasets`."""
    import pyarrow as pa

    text, real, whole = pa.string(), pa.float64(), pa.int64()
    plain = {
        "id": text, "taken": real, "model": text, "pack": text, "tenant": text, "client": text,
        "sampled": pa.bool_(), "seen": whole, "state": text, "decision": text, "p_value": real,
        "predicted": whole, "budget": real, "trace": text, "pixels": pa.binary(),
    }  # fmt: skip
    several = {
        "alarms": text, "evidence": pa.float32(), "probabilities": pa.float32(),
        "upstream": pa.float32(), "shape": whole,
    }  # fmt: skip
    groups = {
        "scores": {"name": text, "value": real, "p_value": real},
        "reviews": {"reviewer": text, "label": text, "at": real, "source": text},
    }
    features: dict[str, Any] = {
        "image": {"_type": "Image"},
        "label": {"names": list(CLASSES), "_type": "ClassLabel"},
    }
    fields = [
        pa.field("image", pa.struct([("bytes", pa.binary()), ("path", text)])),
        pa.field("label", whole),
    ]
    for name, kind in plain.items():
        fields.append(pa.field(name, kind))
        features[name] = _value(kind)
    for name, kind in several.items():
        fields.append(pa.field(name, pa.list_(kind)))
        features[name] = {"feature": _value(kind), "_type": "List"}
    for name, members in groups.items():
        fields.append(pa.field(name, pa.list_(pa.struct(list(members.items())))))
        features[name] = {
            "feature": {member: _value(kind) for member, kind in members.items()},
            "_type": "List",
        }
    about = {
        b"huggingface": json.dumps({"info": {"features": features}}).encode(),
        NOTES: json.dumps(dict(notes)).encode(),
    }
    return pa.schema(fields, metadata=about)


def _value(kind: Any) -> dict[str, str]:
    names = {"double": "float64", "float": "float32"}
    return {"dtype": names.get(str(kind), str(kind)), "_type": "Value"}
