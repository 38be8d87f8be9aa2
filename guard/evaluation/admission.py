"""A candidate pack before the gate: may the two be compared at all, and how do they compare?

What is judged is what would be served: the scores come from `detector.onnx` itself.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from guard import calibration, rows
from guard.calibration import Calibration
from guard.errors import PackError
from guard.evaluation.compared import HEADS, Flags
from guard.evaluation.gate import BUDGETS, TOLERANCE, GateReport, Side, Struck, compare
from guard.onnx import Session
from guard.pack import Pack
from guard.rows import PARTS, Rows

GRAPH, JUDGED = "evidence.onnx", ("detector.onnx", "calibration.npz")
FROZEN = ("calibrate", "holdout")  # tables that a candidate hands on as they are
SAME = ("classes", "input", "scores")  # in the manifest


class Served:
    """A pack's detector as it is served, asked about rows instead of pictures."""

    def __init__(self, pack: Pack) -> None:
        self.columns = pack.columns
        self._pack = pack
        self._session = Session(
            pack.files["detector.onnx"], providers=["CPUExecutionProvider"], threads=1
        )

    def score_names(self, upstream: bool) -> tuple[str, ...]:
        """Names of the score columns (D)."""
        return self._pack.score_names(upstream=upstream)

    def scores(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (R, D0) and (R, D1) of features (R, E + 1)."""
        found = features.numpy()
        evidence, odds = found[:, :-1], found[:, -1:]
        count, classes = len(found), len(self._pack.classes)
        # The graph takes answers, not odds: one pair of answers with just these odds.
        likely = np.zeros((count, classes), np.float32)
        likely[:, :1], likely[:, 1:2] = 1.0, np.exp(-odds)
        answer = np.zeros((count, classes), np.float32)
        answer[:, 1] = 1.0
        feeds = {
            "evidence": np.ascontiguousarray(evidence),
            "probabilities": likely,
            "upstream": answer,
        }
        out = self._session.run(feeds)
        return torch.from_numpy(out["scores_alone"]), torch.from_numpy(out["scores_upstream"])


def admit(
    candidate: Pack,
    current: Pack,
    *,
    calibrations: Mapping[str, Calibration] | None = None,
    reviewed: Rows | None = None,
    answered: Flags | None = None,
    adaptive: Sequence[Struck] = (),
    budgets: Sequence[float] = BUDGETS,
    tolerance: float = TOLERANCE,
    heads: Sequence[str] = tuple(HEADS),
) -> GateReport:
    """Judge a candidate against the current pack, on the current pack's hold-out.

    calibrations: what the operator calibrated for the current pack, in place of its own. Everything
    else as for `compare`. Raises PackError where the current pack keeps no rows.
    """
    table = tables(current)
    wrong = list(misfits(candidate, current, table))
    own = calibration.load(current.files["calibration.npz"]) | dict(calibrations or {})
    theirs = calibration.load(candidate.files["calibration.npz"])
    judged = {name: hashlib.sha256(candidate.files[name]).hexdigest() for name in JUDGED}
    if wrong:
        return GateReport((), tuple(wrong), current.digest, judged, tolerance, tuple(heads))
    return compare(
        Side(Served(current), own),
        Side(Served(candidate), theirs),
        holdout=table["holdout"],
        reviewed=reviewed,
        answered=answered,
        adaptive=adaptive,
        budgets=budgets,
        tolerance=tolerance,
        heads=heads,
        classes=current.classes,
        against=current.digest,
        judged=judged,
    )


def tables(pack: Pack) -> dict[str, Rows]:
    """The rows that a pack keeps. Raises PackError where there are none."""
    if rows.FILE not in pack.files:
        raise PackError(f"{pack.folder} keeps no {rows.FILE}: nothing to compare detectors on")
    return rows.load(pack.files[rows.FILE])


def reviewed_rows(file: Path) -> tuple[Rows, Flags]:
    """A file's table "reviewed", and which of its rows (R,) have an upstream's answer.

    Kinds that end with " alone" have none. Raises PackError where there is no such table.
    """
    found = rows.load(file)
    if "reviewed" not in found:
        raise PackError(f"{file} holds no table 'reviewed', only {', '.join(found)}")
    table = found["reviewed"]
    alone = [number for number, kind in enumerate(table.kinds) if kind.endswith(" alone")]
    return table, ~np.isin(table.kind, alone)


def misfits(candidate: Pack, current: Pack, kept: Mapping[str, Rows]) -> Iterator[str]:
    """What makes a comparison void, a line each. kept: the current pack's rows."""
    if candidate.files[GRAPH] != current.files[GRAPH]:
        yield f"{GRAPH} is not the current pack's: evidence of two graphs is not comparable"
    for key in SAME:
        if candidate.manifest[key] != current.manifest[key]:
            yield f"{key} in the manifest is not the current pack's"
    if rows.FILE not in candidate.files:
        yield f"the candidate keeps no {rows.FILE}"
        return
    new = rows.load(candidate.files[rows.FILE])
    for name in FROZEN:
        if name not in new or not _equal(new[name], kept[name]):
            yield f"the table {name!r} in {rows.FILE} is not the current pack's"
    leaked = _shared(new["learn"], kept["holdout"]) if "learn" in new else 0
    if leaked:
        yield f"the candidate learned from {leaked} rows of the hold-out"
    entries = calibration.load(candidate.files["calibration.npz"])
    for head in HEADS:
        names = candidate.score_names(upstream=head == "upstream")
        if head not in entries or entries[head].names != names:
            yield f"the candidate's calibration {head!r} does not fit its scores"


def _equal(one: Rows, other: Rows) -> bool:
    same = (one.columns, one.kinds) == (other.columns, other.kinds)
    return same and all(np.array_equal(getattr(one, n), getattr(other, n)) for n in PARTS)


def _shared(one: Rows, other: Rows) -> int:
    """How many of the one's rows are among the other's, number for number."""
    known = set(_bytes(other.features))
    return sum(row in known for row in _bytes(one.features))


def _bytes(features: NDArray[np.float32]) -> list[bytes]:
    return [row.tobytes() for row in np.ascontiguousarray(features)]
