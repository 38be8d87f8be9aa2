"""The gate: a candidate's detector against the current one, on rows that neither learned from.

Both are shown the same rows: clean, corrupted and attacked pictures of the frozen hold-out, whole
and class by class, reviewed suspects that were kept apart, and fresh adaptive attacks. One row that
is worse by more than its tolerance, and by more than chance, refuses the candidate.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from guard.calibration import Calibration
from guard.errors import InputError
from guard.evaluation.compared import ADAPTIVE, HEADS, Flags, Pair, Row, lines, shared
from guard.rows import Rows

BUDGETS = (0.05, 0.01)
TOLERANCE = 0.01  # one point
# Calibration pictures above a threshold: with fewer, its own error is added to the tolerance.
SETTLED = 100
ALL, CORRUPTED, ATTACKS = "all together", "corrupted pictures", "static attacks"
CLASS_ALARMS, CLASS_TPR = "benign pictures by class", "static attacks by class"
REVIEWED = "reviewed suspects"
# How many times the tolerance a part's rows may lose: training again moves single attacks and
# corruptions by two points and single classes by five, better here and worse there.
TIMES = {ALL: 1, CORRUPTED: 2, ATTACKS: 2, CLASS_ALARMS: 5, CLASS_TPR: 5, REVIEWED: 2, ADAPTIVE: 5}
VERSION = 1  # of the JSON


class Judge(Protocol):
    """What a detector is to the gate: `guard.defenses.detector.Detector` is one."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The E names of the evidence."""
        ...

    def score_names(self, upstream: bool) -> tuple[str, ...]:
        """Names of the score columns (D)."""
        ...

    def scores(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (R, D0) without and (R, D1) with the upstream's answer, of features (R, E + 1)."""
        ...


@dataclass(frozen=True)
class Side:
    """One of the two: a detector and the calibrations that its scores are read with."""

    detector: Judge
    calibrations: Mapping[str, Calibration]  # "alone" and "upstream"

    @torch.no_grad()
    def p_values(self, rows: Rows) -> dict[str, NDArray[np.float32]]:
        """The detector's p-values (R,) by head; NaN where a score is not finite."""
        scores = self.detector.scores(torch.from_numpy(rows.features))
        return {
            head: self.calibrations[head].p_values(found.numpy())[:, -1]
            for head, found in zip(("alone", "upstream"), scores, strict=True)
        }


@dataclass(frozen=True)
class Struck:
    """Adaptive attacks on both sides: which pictures reach the client wrong and without alarm."""

    name: str
    head: str
    budget: float
    current: Flags  # (N,), undetected
    candidate: Flags  # (N,)


@dataclass(frozen=True)
class GateReport:
    """What the gate found, row by row."""

    rows: tuple[Row, ...]
    problems: tuple[str, ...] = ()  # what makes a comparison void: another graph, other rows
    against: str = ""  # digest of the current pack
    judged: Mapping[str, str] = field(default_factory=dict)  # SHA-256 of the candidate's files
    tolerance: float = TOLERANCE
    heads: tuple[str, ...] = tuple(HEADS)  # whose rows may refuse

    @property
    def refused(self) -> tuple[Row, ...]:
        """The rows that refuse the candidate, those of all together first."""
        found = [row for row in self.rows if row.refused]
        return tuple(sorted(found, key=lambda row: list(TIMES).index(row.part)))

    @property
    def passed(self) -> bool:
        """Whether the candidate may be promoted."""
        return not self.problems and not self.refused and bool(self.rows)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is refused, a line each; none where it passed."""
        return (*self.problems, *map(str, self.refused))

    def record(self) -> dict[str, Any]:
        """For `gate.json`."""
        return {
            "version": VERSION,
            "against": self.against,
            "judged": dict(self.judged),
            "passed": self.passed,
            "reasons": list(self.reasons),
            "tolerance": self.tolerance,
            "heads": list(self.heads),
            "rows": [
                {**asdict(row), "chance": row.chance, "refused": row.refused} for row in self.rows
            ],
        }


def compare(
    current: Side,
    candidate: Side,
    *,
    holdout: Rows,
    reviewed: Rows | None = None,
    answered: Flags | None = None,
    adaptive: Sequence[Struck] = (),
    budgets: Sequence[float] = BUDGETS,
    tolerance: float = TOLERANCE,
    heads: Sequence[str] = tuple(HEADS),
    classes: Sequence[str] = (),
    problems: Sequence[str] = (),
    against: str = "",
    judged: Mapping[str, str] | None = None,
) -> GateReport:
    """Judge a candidate. holdout: the current pack's; reviewed: rows that nothing learned from.

    answered (R,): which of the reviewed rows have an upstream's answer (default: all). tolerance:
    a share; rows of single attacks, corruptions and classes may lose TIMES as much.
    heads: whose rows may refuse; the other's are told. Behind an upstream "upstream" alone decides,
    in an ensemble that answers by itself "alone". classes: names for the labels. problems: what was
    found wrong before. against, judged: for the report. Raises InputError where rows and detectors
    are of other graphs, or no such head is there.
    """
    if not heads or not set(heads) <= set(HEADS):
        raise InputError(f"heads are some of {', '.join(HEADS)}, not {', '.join(heads) or 'none'}")
    wrong = list(problems)
    rows: list[Row] = []
    for found, part in ((holdout, "hold-out"), (reviewed, "reviewed")):
        if found is None or not len(found):
            continue
        _fits(current, candidate, found)
        before, after = current.p_values(found), candidate.p_values(found)
        for head in HEADS:
            count = int((~np.isfinite(after[head])).sum())
            if count:
                wrong.append(f"{count} scores on {part} rows are not finite, {HEADS[head]}")
            for budget in _within(current, head, budgets):
                pair = Pair(
                    ~(before[head] > budget),
                    ~(after[head] > budget),
                    found.suspicious,
                    pictures(found),
                    _moved(current.calibrations[head], before[head], budget),
                )
                if part == "hold-out":
                    rows += _held(pair, found, classes, head, budget, tolerance)
                else:
                    rows += _reviewed(pair, found, answered, head, budget, tolerance)
    wrong += [
        f"the candidate's calibration {head!r} cannot resolve a budget of {100 * budget:g}%"
        for head in HEADS
        for budget in _within(current, head, budgets)
        if candidate.calibrations[head].smallest > budget
    ]
    rows += _adaptive(adaptive, tolerance)
    bound = tuple(replace(row, binding=row.head in heads) for row in rows)
    return GateReport(bound, tuple(wrong), against, judged or {}, tolerance, tuple(heads))


def pictures(rows: Rows) -> NDArray[np.int64]:
    """Which rows (R,) show one picture: a hold-out's corruptions are of its first clean pictures.

    Which pictures its attacks are of is not known: they count as apart.
    """
    found = np.arange(len(rows), dtype=np.int64) + len(rows)
    kinds = _kinds(rows)
    clean = np.flatnonzero(kinds.get("clean", np.zeros(len(rows), bool)))
    for mask in kinds.values():
        chosen = np.flatnonzero(mask)
        first = clean[: len(chosen)]
        if not rows.suspicious[chosen].any() and np.array_equal(
            rows.label[chosen], rows.label[first]
        ):
            found[chosen] = first
    return found


def _fits(current: Side, candidate: Side, rows: Rows) -> None:
    for side in (current, candidate):
        if len(rows.columns) != len(side.detector.columns) + 1:
            raise InputError("the rows and the detector do not belong to one graph")
        for head in HEADS:
            names = side.detector.score_names(head == "upstream")
            if head not in side.calibrations or side.calibrations[head].names != names:
                raise InputError(f"the calibration {head!r} does not fit the detector")


def _within(current: Side, head: str, budgets: Sequence[float]) -> list[float]:
    """The budgets that the current calibration can resolve."""
    return [budget for budget in budgets if current.calibrations[head].smallest <= budget]


def _moved(own: Calibration, found: NDArray[np.float32], budget: float) -> Flags | None:
    above = budget * len(own)
    if above >= SETTLED:
        return None
    off = np.sqrt(budget * (1 - budget) / len(own))  # of the realised rate, a beta variable
    return np.stack([~(found > budget - off), ~(found > budget + off)])


def _held(
    pair: Pair, rows: Rows, classes: Sequence[str], head: str, budget: float, tolerance: float
) -> Iterator[Row]:
    benign, kinds = ~rows.suspicious, _kinds(rows)
    clean = kinds.pop("clean", np.zeros(len(rows), bool))
    whole = {"all attacks": ~benign, "clean": clean, "all corruptions": benign & ~clean}
    parts: list[tuple[str, Mapping[str, Flags]]] = [
        (ALL, whole),
        (CORRUPTED, {name: mask for name, mask in kinds.items() if not (mask & ~benign).any()}),
        (ATTACKS, {name: mask for name, mask in kinds.items() if not (mask & benign).any()}),
        (CLASS_ALARMS, _classes(rows, classes, benign)),
        (CLASS_TPR, _classes(rows, classes, ~benign)),
    ]
    for part, masks in parts:
        yield from lines(part, pair, masks, head, budget, tolerance=TIMES[part] * tolerance)


def _reviewed(
    pair: Pair, rows: Rows, answered: Flags | None, head: str, budget: float, tolerance: float
) -> Iterator[Row]:
    usable = np.ones(len(rows), bool) if answered is None or head == "alone" else answered
    masks = {
        "adversarial": rows.suspicious & usable,
        "benign": ~rows.suspicious & usable,
    }
    allowed = TIMES[REVIEWED] * tolerance
    yield from lines(REVIEWED, pair, masks, head, budget, tolerance=allowed)


def _adaptive(struck: Sequence[Struck], tolerance: float) -> Iterator[Row]:
    some = [one for one in struck if len(one.current)]
    pairs = [Pair(s.current, s.candidate, np.zeros(len(s.current), bool)) for s in some]
    level, allowed = shared([sum(pair.changed) for pair in pairs]), TIMES[ADAPTIVE] * tolerance
    for one, pair in zip(some, pairs, strict=True):
        yield pair.row(ADAPTIVE, one.name, one.head, one.budget, tolerance=allowed, level=level)


def _kinds(rows: Rows) -> dict[str, Flags]:
    return {name: rows.kind == number for number, name in enumerate(rows.kinds)}


def _classes(rows: Rows, names: Sequence[str], among: Flags) -> dict[str, Flags]:
    """Masks by class; rows whose class nobody knows are in none."""
    known = np.unique(rows.label[rows.label >= 0])
    return {
        f"class {names[label] if label < len(names) else label}": (rows.label == label) & among
        for label in map(int, known)
    }
