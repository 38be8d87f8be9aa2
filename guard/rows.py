"""Rows of evidence: what a detector learned from, is calibrated on and is held to.

A row is a defence's evidence on one picture, followed by the odds against the upstream's label;
there is no picture in it. A pack keeps three tables of them, so that its detector can be trained,
calibrated and judged again in seconds, without pictures and without a classifier. Letters: R rows,
F = E + 1 features.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from guard.archive import Arrays, read_described
from guard.errors import InputError

Floats = NDArray[np.float32]

FILE = "rows.npz"
# learn: the detector was trained on it. calibrate: thresholds come from it, clean pictures alone.
# holdout: nothing learns from it, and nothing that callers sent may ever enter it.
TABLES = ("learn", "calibrate", "holdout")
MAX_BYTES = 256 << 20  # unpacked
PARTS = ("features", "suspicious", "kind", "label")


@dataclass(frozen=True)
class Rows:
    """R rows of evidence, and what is known of the pictures they come from."""

    columns: tuple[str, ...]  # F
    features: Floats  # (R, F)
    suspicious: NDArray[np.bool_]  # (R,), attacks
    kinds: tuple[str, ...]  # "clean", a corruption's or an attack's name
    kind: NDArray[np.int16]  # (R,), into `kinds`
    label: NDArray[np.int32]  # (R,), the true class; -1 where nobody knows

    def __post_init__(self) -> None:
        count = len(self.features)
        if self.features.shape != (count, len(self.columns)):
            raise InputError(f"rows have shape {self.features.shape}, not (R, {len(self.columns)})")
        if any(getattr(self, name).shape != (count,) for name in PARTS[1:]):
            raise InputError("rows need one kind, one label and one mark each")
        if not np.isfinite(self.features).all():
            raise InputError("a number in a row is not finite")
        if count and not 0 <= self.kind.min() <= self.kind.max() < len(self.kinds):
            raise InputError("a row is of no kind")

    def __len__(self) -> int:
        return len(self.features)

    @classmethod
    def of(
        cls,
        kind: str,
        columns: Sequence[str],
        features: Floats,
        *,
        suspicious: bool,
        label: NDArray[np.integer] | None = None,
    ) -> "Rows":
        """Rows of one kind; label: (R,)."""
        count = len(features)
        return cls(
            tuple(columns),
            features.astype(np.float32),
            np.full(count, suspicious),
            (kind,),
            np.zeros(count, np.int16),
            np.full(count, -1, np.int32) if label is None else label.astype(np.int32),
        )

    def subset(self, chosen: NDArray[np.integer] | NDArray[np.bool_]) -> "Rows":
        """Some of the rows, by index or by mask (R,)."""
        return Rows(
            self.columns,
            self.features[chosen],
            self.suspicious[chosen],
            self.kinds,
            self.kind[chosen],
            self.label[chosen],
        )

    def only(self, kind: str) -> "Rows":
        """The rows of one kind; none where it is not there."""
        number = self.kinds.index(kind) if kind in self.kinds else -1
        return self.subset(self.kind == number)


def joined(parts: Sequence[Rows]) -> Rows:
    """All of them, in order. Raises InputError for no part, or parts with other columns."""
    if not parts or any(part.columns != parts[0].columns for part in parts):
        raise InputError("these rows do not belong to one graph")
    kinds = tuple(dict.fromkeys(kind for part in parts for kind in part.kinds))
    number = [np.array([kinds.index(kind) for kind in part.kinds], np.int16) for part in parts]
    return Rows(
        parts[0].columns,
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.suspicious for part in parts]),
        kinds,
        np.concatenate([n[part.kind] for n, part in zip(number, parts, strict=True)]),
        np.concatenate([part.label for part in parts]),
    )


def dump(tables: Mapping[str, Rows]) -> bytes:
    """Tables by name as the bytes of one .npz, the same every time."""
    about = {
        name: {"columns": list(rows.columns), "kinds": list(rows.kinds)}
        for name, rows in tables.items()
    }
    text = json.dumps(about, sort_keys=True).encode()
    arrays: dict[str, NDArray[np.generic]] = {"about": np.frombuffer(text, np.uint8)}
    for name, rows in sorted(tables.items()):
        arrays |= {f"{name}.{part}": getattr(rows, part) for part in PARTS}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def load(source: bytes | Path) -> dict[str, Rows]:
    """Read what `dump` wrote; raises PackError for anything else."""
    return read_described(source, _table, what="file of rows", limit=MAX_BYTES)


def _table(stored: Arrays, name: str, entry: object) -> Rows:
    if not isinstance(entry, dict):
        raise TypeError("its description is malformed")
    return Rows(
        tuple(map(str, entry["columns"])),
        stored[f"{name}.features"].astype(np.float32),
        stored[f"{name}.suspicious"].astype(np.bool_),
        tuple(map(str, entry["kinds"])),
        stored[f"{name}.kind"].astype(np.int16),
        stored[f"{name}.label"].astype(np.int32),
    )
