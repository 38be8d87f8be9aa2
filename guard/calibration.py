"""Split-conformal calibration: from scores to p-values (Vovk et al. 2005; Papadopoulos 2002).

p = (1 + number of calibration scores >= s) / (n + 1). Over draws of the calibration set and an
exchangeable clean image, P(p <= a) <= a exactly; for the one calibration set at hand the realised
rate is beta-distributed, and `realised_rate` gives its interval.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from guard.archive import Arrays, read_described
from guard.errors import InputError

Floats = NDArray[np.float32]

MAX_BYTES = 64 << 20  # unpacked; a few kilobytes of ZIP can claim gigabytes


@dataclass(frozen=True)
class Calibration:
    """Sorted scores of n clean images, one column per named score.

    `about` says where they come from (data set, pack digest, upstream), for people and for
    `guard check`.
    """

    names: tuple[str, ...]  # D
    scores: Floats  # (n, D), every column ascending
    about: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def fit(
        cls, names: Sequence[str], scores: Floats, *, about: Mapping[str, str] | None = None
    ) -> "Calibration":
        """From raw scores (n, D) of clean images; they must all be finite."""
        if scores.ndim != 2 or scores.shape[1] != len(names) or not len(scores):
            raise InputError(f"calibration scores must be (n, {len(names)}), not {scores.shape}")
        if not np.isfinite(scores).all():
            raise InputError("a calibration score is not finite")
        return cls(tuple(names), np.sort(scores.astype(np.float32), axis=0), dict(about or {}))

    def __len__(self) -> int:
        return len(self.scores)

    def p_values(self, scores: Floats) -> Floats:
        """p-values (N, D) of scores (N, D); NaN where a score is not finite."""
        out = np.empty(scores.shape, np.float32)
        for column in range(scores.shape[1]):
            below = np.searchsorted(self.scores[:, column], scores[:, column], side="left")
            out[:, column] = (1 + len(self) - below) / (len(self) + 1)
        return np.where(np.isfinite(scores), out, np.float32(np.nan))

    @property
    def smallest(self) -> float:
        """The smallest p-value it can give: budgets below it can never raise an alarm."""
        return 1 / (len(self) + 1)

    def realised_rate(self, budget: float, *, confidence: float = 0.95) -> tuple[float, float]:
        """Interval of the false-alarm rate that this one calibration set realises at `budget`."""
        allowed = int(np.floor(budget * (len(self) + 1)))
        if not allowed:
            return 0.0, 0.0
        tail = (1 - confidence) / 2
        law = stats.beta(allowed, len(self) + 1 - allowed)
        return float(law.ppf(tail)), float(law.ppf(1 - tail))


def dump(calibrations: Mapping[str, Calibration], beside: Arrays | None = None) -> bytes:
    """Several calibrations ("alone", "upstream") as the bytes of one .npz, the same every time.

    beside: more arrays, which `load` leaves alone.
    """
    about = {
        key: {"names": list(value.names), "about": dict(value.about)}
        for key, value in calibrations.items()
    }
    arrays: dict[str, NDArray[np.generic]] = {
        "about": np.frombuffer(json.dumps(about, sort_keys=True).encode(), np.uint8)
    }
    arrays.update({key: value.scores for key, value in sorted(calibrations.items())})
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays, **(beside or {}))
    return buffer.getvalue()


def load(source: bytes | Path) -> dict[str, Calibration]:
    """Read what `dump` wrote; raises PackError for anything else."""
    return read_described(source, _entry, what="calibration file", limit=MAX_BYTES)


def _entry(stored: Arrays, name: str, entry: Mapping[str, object]) -> Calibration:
    scores, names, about = stored[name], entry["names"], entry["about"]
    if not isinstance(names, list) or not isinstance(about, dict):
        raise TypeError("its description is malformed")
    table = scores.astype(np.float32)
    if table.ndim != 2 or table.shape[1] != len(names) or not len(table):
        raise ValueError(f"scores of shape {table.shape} for {len(names)} names")
    if not np.isfinite(table).all() or (np.diff(table, axis=0) < 0).any():
        raise ValueError("scores are not finite and ascending")
    return Calibration(tuple(map(str, names)), table, {str(k): str(v) for k, v in about.items()})
