"""Whether p-values in traffic still follow the calibration: a test that may be read at any time.

Each *level* is bet on separately: the share of p-values at or below it should be the level itself,
give or take what one calibration set of n pictures can be wrong by (a beta law) and a tolerance
that is nobody's concern. For every level, both directions and a few sizes of a shift a wealth is
kept that cannot grow on average while the share stays inside that band: a bet against it (Vovk and
Shafer: "Game-Theoretic Foundations", 2019; Ramdas et al. 2023). Bets start all the time, each
with its part of one unit of capital (Shiryaev 1963; Shin et al.: "E-detectors", 2024), so that the
wealth is never more than 1 on average, however long nothing happened, and a shift after a million
pictures is seen nearly as soon as one after a thousand. By Ville's inequality it ever reaches
1 / risk with a probability of at most `risk`.

Known limit: pictures must be independent of each other; frames of a video are not.
Letters: N pictures, T columns tested, J levels, A sizes of a shift.
"""

import copy
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Whole = NDArray[np.int64]
Direction = Literal["more", "fewer"]

LEVELS = (0.002, 0.01, 0.05, 0.2, 0.5, 0.8)
SIZES = (1.5, 3.0, 10.0, 40.0)  # odds ratios that are bet on
BLOCK = 16  # p-values between two looks at the wealth
MISSED = 0.001  # probability that a band does not hold the calibration's true shares
SPARE = 100.0  # wealth beyond 1 / risk that is kept: what a shift that ended is forgotten by
# 1 / sum over b >= 2 of 1 / (b log(b)^2): the bets that start in all blocks share one unit
CAPITAL = 1 / 2.10974


class Band(NamedTuple):
    """What the shares of p-values at or below J levels may be, by T columns."""

    levels: Floats  # (J, T), halfway between two possible p-values
    low: Doubles  # (J, T)
    high: Doubles  # (J, T)


def band(scores: Floats, *, tolerance: float, levels: Sequence[float] = LEVELS) -> Band:
    """The band around a calibration's n sorted scores, (n, T).

    The score at rank k (from the top) of n draws lies where a share of Beta(k, n + 1 - k) is above
    it; with equal scores the two ends have ranks of their own. tolerance: 0.25 lets the odds be a
    quarter larger or smaller on top.
    """
    count = len(scores)
    ranks = sorted({min(max(1, round(level * (count + 1))), count) for level in levels})
    miss = MISSED / (2 * len(ranks) * scores.shape[1])
    low, high = np.zeros((2, len(ranks), scores.shape[1]))
    for at, rank in enumerate(ranks):
        high[at] = _odds_times(stats.beta(rank, count + 1 - rank).ppf(1 - miss), 1 + tolerance)
        for column in range(scores.shape[1]):
            found = scores[:, column]
            above = count - int(np.searchsorted(found, found[count - rank], side="right"))
            share = stats.beta(above, count + 1 - above).ppf(miss) if above else 0.0
            low[at, column] = _odds_times(share, 1 / (1 + tolerance))
    edges = (np.array(ranks, np.float32) + 0.5) / (count + 1)
    return Band(np.repeat(edges[:, None], scores.shape[1], 1), low, high)


class Drift:
    """The test for T columns of p-values. Its memory does not grow; one thread at a time.

    risk: probability that clean traffic ever raises an alarm, however long it lasts (and MISSED on
    top, for the band).
    """

    def __init__(self, band: Band, *, risk: float) -> None:
        self._band = band
        self._alarm = float(np.log(1 / risk))
        self.seen = 0  # p-values
        self._waiting = np.empty((0, band.levels.shape[1]), np.float32)
        sizes = np.array(SIZES)[:, None, None, None]
        edge = np.stack([band.high, band.low])[None]  # (1, 2, J, T)
        ratio = np.concatenate([sizes, 1 / sizes], axis=1)  # (A, 2, 1, 1)
        inside = (edge > 1e-9) & (edge < 1 - 1e-9)
        edge = np.clip(edge, 1e-9, 1 - 1e-9)
        bet = _odds_times(edge, ratio)
        # Log of what a bet of one unit becomes by a p-value at or below the level, and by another.
        self._hit = np.where(inside, np.log(bet / edge), 0.0)
        self._other = np.where(inside, np.log((1 - bet) / (1 - edge)), 0.0)
        self._wealth = np.full(self._hit.shape, -np.inf)  # (A, 2, J, T), its log
        self._most = self._alarm + np.log(SPARE * self._wealth.size)
        self._blocks = 2

    def fresh(self) -> "Drift":
        """Another test against the same band, which has seen nothing yet."""
        other = copy.copy(self)
        other.seen, other._blocks = 0, 2
        other._waiting = self._waiting[:0]
        other._wealth = np.full(self._hit.shape, -np.inf)
        return other

    def see(self, p_values: Floats) -> None:
        """Take note of p-values (N, T); rows with one that is not finite do not count."""
        rows = p_values[np.isfinite(p_values).all(1)]
        self._waiting = np.concatenate([self._waiting, rows])
        whole = len(self._waiting) // BLOCK
        blocks = self._waiting[: whole * BLOCK].reshape(whole, BLOCK, rows.shape[1])
        self._waiting = self._waiting[whole * BLOCK :]
        at_most = (blocks[:, :, None] <= self._band.levels).sum(1)  # (whole, J, T)
        for hits in at_most:
            self._bet(hits)
        self.seen += whole * BLOCK

    def _bet(self, hits: Whole) -> None:
        """One block went so; hits: (J, T)."""
        new = np.log(CAPITAL / (self._blocks * np.log(self._blocks) ** 2))
        self._blocks += 1
        gain = hits * self._hit + (BLOCK - hits) * self._other
        self._wealth = np.minimum(np.logaddexp(self._wealth, new) + gain, self._most)

    @property
    def evidence(self) -> float:
        """Log of the wealth as a part of the alarm's: 1 and above is an alarm, 0 is none at all."""
        return max(0.0, _log_mean(self._wealth) / self._alarm)

    @property
    def by_column(self) -> tuple[float, ...]:
        """The same for each of the T columns alone; some random one of them is the largest."""
        columns = np.moveaxis(self._wealth, -1, 0)
        return tuple(max(0.0, _log_mean(one) / self._alarm) for one in columns)

    @property
    def direction(self) -> Direction:
        """Whether there are rather more small p-values than there should be, or fewer."""
        more, fewer = (_log_mean(self._wealth[:, side]) for side in (0, 1))
        return "more" if more >= fewer else "fewer"


def _log_mean(logs: Doubles) -> float:
    top = float(logs.max())
    if top == -np.inf:
        return top
    return top + float(np.log(np.exp(logs - top).mean()))


def _odds_times(share: float | Doubles, factor: float | Doubles) -> Doubles:
    """The share whose odds are `factor` times those of this one."""
    found: Doubles = np.asarray(share * factor / (1 - share + share * factor))
    return found
