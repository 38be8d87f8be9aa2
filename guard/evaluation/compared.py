"""Two detectors on the same rows: who got worse where, and whether that can be chance.

Everything is paired: a row of the comparison counts pictures that only one of the two gets right.
Under "equally good" either is as likely to be the one, so the sign test on those pictures, which is
McNemar's exact one (1947), says how often an equal candidate would look this bad. Versions of one
picture fall together: they count once, for the side that gets more of them right.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

Flags = NDArray[np.bool_]

ENOUGH = 1000  # pictures: with as many, a point is more than the noise of a pair of equals
LEVEL = 0.05  # chance that equals are refused by any of a part's rows, per head and budget


@dataclass(frozen=True)
class Row:
    """One line of the comparison: shares of `images` on which the two are counted.

    Attacks: share flagged (TPR), more is better. Benign pictures: share flagged (false alarms),
    less is better. Adaptive attacks: share undetected, less is better.
    """

    part: str
    name: str
    head: str  # "upstream": with the production classifier's answer; "alone": without
    budget: float
    images: int
    more_is_better: bool
    current: float
    candidate: float
    lost: int  # pictures that only the current one gets right
    won: int  # pictures that only the candidate gets right
    worse: int  # the same, versions of one picture counted once
    better: int
    tolerance: float  # a share: it may lose that much
    level: float  # it must be this unlikely for equals; 1: the tolerance alone decides
    binding: bool = True  # False: told, but it refuses nothing

    @property
    def loss(self) -> float:
        """By how much the candidate is worse, as a share; negative where it is better."""
        return (self.lost - self.won) / max(self.images, 1)

    @property
    def chance(self) -> float:
        """How likely equals are to look at least this bad (one-sided, exact)."""
        return float(binom.sf(self.worse - 1, self.worse + self.better, 0.5))

    @property
    def luck(self) -> float:
        """How likely equals are to look at least this good."""
        return float(binom.sf(self.better - 1, self.worse + self.better, 0.5))

    @property
    def refused(self) -> bool:
        """Worse by more than the tolerance, and more than chance explains."""
        return self.binding and self.loss > self.tolerance + 1e-12 and self.chance <= self.level

    @property
    def blind(self) -> bool:
        """So few pictures that nothing could refuse it."""
        return self.images < fewest(self.level)

    @property
    def what(self) -> str:
        """What the shares are."""
        if self.part == ADAPTIVE:
            return "undetected"
        return "TPR" if self.more_is_better else "false alarms"

    def __str__(self) -> str:
        return (
            f"{self.name}, {self.what} at {100 * self.budget:g}%, {HEADS[self.head]}: "
            f"{100 * self.current:.1f} -> {100 * self.candidate:.1f} of {self.images} "
            f"(tolerance {100 * self.tolerance:.1f} points)"
        )


ADAPTIVE = "adaptive attacks"
HEADS: Mapping[str, str] = {
    "upstream": "with the upstream's answer",
    "alone": "without the upstream's answer",
}


@dataclass(frozen=True)
class Pair:
    """Which of R pictures are flagged (or, attacked adaptively, undetected) by either side."""

    current: Flags  # (R,)
    candidate: Flags  # (R,)
    good: Flags  # (R,), a flag is right here
    picture: NDArray[np.int64] | None = None  # (R,), the same for versions of one; None: all apart
    # (2, R): the current one's flags where its threshold moves by a standard deviation of what its
    # calibration pictures can be blamed for; none where they are too many to matter.
    moved: Flags | None = None

    def on(self, chosen: Flags) -> "Pair":
        """Some of the pictures, by a mask (R,)."""
        moved = None if self.moved is None else self.moved[:, chosen]
        picture = None if self.picture is None else self.picture[chosen]
        good = self.good[chosen]
        return Pair(self.current[chosen], self.candidate[chosen], good, picture, moved)

    @property
    def changed(self) -> tuple[int, int]:
        """How many pictures the candidate is worse and better on, versions counted once."""
        net = (self.current == self.good).astype(np.int64) - (self.candidate == self.good)
        if self.picture is not None:
            _, number = np.unique(self.picture, return_inverse=True)
            net = np.bincount(number, net)
        return int((net > 0).sum()), int((net < 0).sum())

    @property
    def slack(self) -> float:
        """By how much the current share moves with its threshold: half the spread."""
        if self.moved is None:
            return 0.0
        shares = self.moved.mean(1)
        return float(abs(shares[0] - shares[1]) / 2)

    def row(
        self, part: str, name: str, head: str, budget: float, *, tolerance: float, level: float
    ) -> Row:
        """One line; all of the pictures are attacks, or none is."""
        before, after = self.current == self.good, self.candidate == self.good
        count = len(before)
        strict = count >= ENOUGH
        allowed = tolerance if strict else max(tolerance, fewest(level) / count)
        return Row(
            *(part, name, head, budget, count, bool(self.good.all())),
            *(float(self.current.mean()), float(self.candidate.mean())),
            *(int((before & ~after).sum()), int((~before & after).sum())),
            *self.changed,
            tolerance=allowed + self.slack,
            level=1.0 if strict else level,
        )


def fewest(level: float) -> int:
    """How many lost pictures, and none won, are the fewest that equals hardly ever show."""
    return int(np.ceil(-np.log2(level)))


def shared(changed: Sequence[int], level: float = LEVEL) -> float:
    """The level of each of several rows, so that equals are refused by any with `level` at most.

    changed: pictures by row that only one side gets right. A row in which too few changed cannot be
    refused whatever happened, so it takes no part (Tarone 1990, "A modified Bonferroni method for
    discrete data").
    """
    parts = 1
    while sum(count >= fewest(level / parts) for count in changed) > parts:
        parts += 1
    return level / parts


def lines(
    part: str,
    pair: Pair,
    masks: Mapping[str, Flags],
    head: str,
    budget: float,
    *,
    tolerance: float,
) -> Iterator[Row]:
    """A row for every mask (R,) that chooses any pictures; the small ones share their level."""
    some = {name: pair.on(mask) for name, mask in masks.items() if mask.any()}
    level = shared([sum(one.changed) for one in some.values() if len(one.good) < ENOUGH])
    for name, one in some.items():
        yield one.row(part, name, head, budget, tolerance=tolerance, level=level)
