"""What the defence says about an image, and what a policy makes of it.

Shapes: N images, K classes, D scores.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Mode = Literal["monitor", "enforce"]
OnFlag = Literal["annotate", "substitute", "block"]
OnError = Literal["block", "allow"]
Expose = Literal["none", "decision", "full"]
# Where the first of some images stood in a run, and how many images it had. A number depends on
# both in its last bits (how a matrix product is cut into tiles), and on no neighbour.
Place = tuple[int, int]


class Decision(IntEnum):
    """The decision on one image, as it travels on the wire (`guard_decision`, INT32)."""

    ALLOW = 0
    FLAG = 1
    BLOCK = 2
    ABSTAIN = 3
    ERROR = 4


@dataclass(frozen=True)
class Policy:
    """What a model's operator wants done with a suspicious image."""

    mode: Mode = "monitor"
    on_flag: OnFlag = "annotate"
    on_error: OnError = "block"
    max_false_positive_rate: float = 0.01
    expose: Expose = "full"


@dataclass(frozen=True)
class Verdict:
    """The verdict on one image.

    `label` is the answering classifier's class: the upstream's where it answers, else the robust
    ensemble's. `scores` and `p_values` are named by defence, "detector" last; higher scores are
    more suspicious, smaller p-values rarer among clean images.
    """

    decision: Decision
    p_value: float
    label: int
    scores: Mapping[str, float] = field(default_factory=dict)
    p_values: Mapping[str, float] = field(default_factory=dict)
    substituted: bool = False
    reason: str = ""

    def record(self) -> dict[str, object]:
        """As JSON, numbers that are not finite as null."""
        return {
            "decision": self.decision.name,
            "p_value": _number(self.p_value),
            "label": self.label,
            "scores": {name: _number(value) for name, value in self.scores.items()},
            "p_values": {name: _number(value) for name, value in self.p_values.items()},
            "substituted": self.substituted,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Verdicts:
    """The verdicts on a batch, column by column: what the request path works on."""

    decisions: NDArray[np.int32]  # (N,)
    p_values: Floats  # (N,), of the detector; NaN where the decision is ERROR
    labels: NDArray[np.int64]  # (N,)
    probabilities: Floats  # (N, K), the robust ensemble's
    scores: Floats  # (N, D), the detector's last
    score_p_values: Floats  # (N, D)
    score_names: tuple[str, ...]  # D names
    substituted: NDArray[np.bool_]  # (N,)
    place: Place | None = None  # None: they were judged by themselves

    def __len__(self) -> int:
        return len(self.decisions)

    def rows(self) -> list[Verdict]:
        """One `Verdict` per image."""
        return [self.row(index) for index in range(len(self))]

    def row(self, index: int) -> Verdict:
        """The verdict on one image."""
        decision = Decision(int(self.decisions[index]))
        scores = map(float, self.scores[index])
        p_values = map(float, self.score_p_values[index])
        return Verdict(
            decision=decision,
            p_value=float(self.p_values[index]),
            label=int(self.labels[index]),
            scores=dict(zip(self.score_names, scores, strict=True)),
            p_values=dict(zip(self.score_names, p_values, strict=True)),
            substituted=bool(self.substituted[index]),
            reason="a number is not finite" if decision is Decision.ERROR else "",
        )


def decide(
    p_values: Floats, finite: NDArray[np.bool_], policy: Policy
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Decisions (N,) and substituted (N,) from the detector's p-values (N,).

    An image whose numbers are not all finite is ERROR under every policy; comparisons are written
    so that a NaN p-value can never end in ALLOW.
    """
    with np.errstate(invalid="ignore"):
        clear = p_values > policy.max_false_positive_rate
    usable = finite & np.isfinite(p_values)
    blocks = policy.mode == "enforce" and policy.on_flag == "block"
    alarm = Decision.BLOCK if blocks else Decision.FLAG
    decisions = np.where(clear, np.int32(Decision.ALLOW), np.int32(alarm))
    decisions = np.where(usable, decisions, np.int32(Decision.ERROR)).astype(np.int32)
    substitutes = policy.mode == "enforce" and policy.on_flag == "substitute"
    return decisions, usable & ~clear & substitutes


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
