"""Reviewed suspects as rows of evidence: what people said of traffic, ready to learn from.

Whatever is in here was sent by callers, who may have sent it to steer the detector: nothing learns
from it before `guard.training.selection` has been through it. Letters: R suspects, F features.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from guard.errors import InputError
from guard.rows import Floats, Rows

# The kinds of rows that came from traffic. Those "alone" were judged without an upstream's answer:
# their last feature means nothing, so the head that sees the upstream must not learn from them.
ADVERSARIAL, BENIGN = "suspect adversarial", "suspect benign"
ALONE = " alone"


@dataclass(frozen=True)
class Reviewed:
    """R suspects that reviewers agreed on, oldest first."""

    columns: tuple[str, ...]  # F
    id: NDArray[np.str_]  # (R,), each once
    features: Floats  # (R, F); the last is 0 where there was no upstream
    has_upstream: NDArray[np.bool_]  # (R,)
    suspicious: NDArray[np.bool_]  # (R,), what the reviewers said
    client: NDArray[np.str_]  # (R,), keyed hash of who sent it
    day: NDArray[np.int32]  # (R,), days since 1970, UTC
    reviewers: NDArray[np.int16]  # (R,), people who said so; a client's word does not count
    dissent: NDArray[np.int16]  # (R,), people who said otherwise
    sampled: NDArray[np.bool_]  # (R,), drawn at random, whatever the decision
    model: NDArray[np.str_]  # (R,)
    pack: NDArray[np.str_]  # (R,), digest of the pack that judged it
    predicted: NDArray[np.int32]  # (R,), the answering classifier's class

    def __post_init__(self) -> None:
        count = len(self.id)
        if self.features.shape != (count, len(self.columns)):
            shape = self.features.shape
            raise InputError(f"reviewed suspects have shape {shape}, not (R, {len(self.columns)})")
        if any(getattr(self, name).shape != (count,) for name in FIELDS):
            raise InputError("reviewed suspects need one of everything each")
        if not np.isfinite(self.features).all():
            raise InputError("a number in a reviewed suspect is not finite")
        if len(set(self.id.tolist())) != count:
            raise InputError("a reviewed suspect is there twice")

    def __len__(self) -> int:
        return len(self.id)

    def subset(self, chosen: NDArray[np.integer] | NDArray[np.bool_]) -> "Reviewed":
        """Some of them, by index or by mask (R,)."""
        parts = {name: getattr(self, name)[chosen] for name in FIELDS}
        return Reviewed(self.columns, features=self.features[chosen], **parts)

    def rows(self) -> Rows:
        """The same as rows, in this order; their true classes are not known."""
        kinds = (ADVERSARIAL, BENIGN, ADVERSARIAL + ALONE, BENIGN + ALONE)
        kind = np.where(self.suspicious, 0, 1) + np.where(self.has_upstream, 0, 2)
        unknown = np.full(len(self), -1, np.int32)
        return Rows(
            self.columns, self.features, self.suspicious, kinds, kind.astype(np.int16), unknown
        )


FIELDS = tuple(f.name for f in fields(Reviewed) if f.name not in ("columns", "features"))


def has_upstream(rows: Rows) -> NDArray[np.bool_]:
    """Which rows (R,) carry an upstream's answer in their last feature."""
    alone = [number for number, kind in enumerate(rows.kinds) if kind.endswith(ALONE)]
    return ~np.isin(rows.kind, alone)


def from_traffic(rows: Rows) -> NDArray[np.bool_]:
    """Which rows (R,) are suspects of earlier rounds."""
    kinds = [n for n, kind in enumerate(rows.kinds) if kind.startswith((ADVERSARIAL, BENIGN))]
    return np.isin(rows.kind, kinds)
