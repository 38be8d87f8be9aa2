"""What a detector may learn from traffic: callers wrote it, and some of them to steer the detector.

Filters in a fixed order, each over what the one before left; a row is dropped for one reason. None
of them looks at the detector's own score: it would let the detector confirm itself. Rows are taken
in the order of their ids, keyed hashes that no caller can choose. Letters: R rows, F features.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from guard.errors import ConfigError, InputError
from guard.rows import Floats, Rows
from guard.training.noise import mislabelled
from guard.training.reviewed import Reviewed

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Limits:
    """How much one round may take, and from whom."""

    quorum: int = 1  # reviewers who agreed
    dissent: int = 0  # reviewers who said otherwise, at most
    duplicates: float = (
        0.25  # nearer than that, in standard deviations of the old rows, is the same
    )
    per_client_day: int = 50  # rows from one client on one day
    per_client: float = 0.25  # of the rows that are left, from one client
    outliers: float = 4.0  # deviations from the median; 0: no filter
    label_noise: bool = True
    fewest: int = 20  # rows of either kind that are left; fewer teach nothing

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value >= 0:
                raise ConfigError(f"limit {name} must not be below 0, not {value}", key=name)
        if not 0 < self.per_client <= 1:
            raise ConfigError("per_client must be in (0, 1]", key="per_client")
        if self.per_client_day < 1:
            raise ConfigError("per_client_day must be 1 or more", key="per_client_day")


@dataclass(frozen=True)
class Selection:
    """Which of the reviewed rows may be learned from, and why not the others."""

    kept: Mask  # (R,)
    reason: NDArray[np.str_]  # (R,), "" where kept, else one of REASONS

    def counts(self) -> dict[str, int]:
        """Rows kept, and dropped by reason; every reason is there."""
        dropped = {name: int((self.reason == name).sum()) for name in REASONS}
        return {"kept": int(self.kept.sum()), **dropped}


class _Sieve:
    """Rows that are still in; every filter says which of them go, and why."""

    def __init__(self, new: Reviewed) -> None:
        self.new = new
        self.reason: NDArray[np.str_] = np.full(len(new), "", dtype="U24")
        self.order = np.argsort(new.id)

    @property
    def left(self) -> NDArray[np.intp]:
        """Indices of the rows still in, by id."""
        left: NDArray[np.intp] = self.order[self.reason[self.order] == ""]
        return left

    def drop(self, reason: str, rule: Callable[[NDArray[np.intp]], Mask]) -> None:
        """`rule` gets the indices left (n,) and marks those to drop (n,)."""
        left = self.left
        if len(left):
            self.reason[left[rule(left)]] = reason


def select(new: Reviewed, old: Rows, limits: Limits | None = None) -> Selection:
    """The rows of `new` that may be learned from beside `old`, which is trusted.

    Where fewer than `limits.fewest` are left, the round is too small: nothing is kept. Raises
    InputError where the rows belong to another graph, or there is nothing to compare with.
    """
    limits = limits or Limits()
    if new.columns != old.columns:
        raise InputError("the reviewed suspects do not belong to the pack's graph")
    sieve, scaled = _Sieve(new), _standardized(new.features, old)
    capped = partial(_over_client_share, new, share=limits.per_client)
    sieve.drop("quorum", lambda left: new.reviewers[left] < limits.quorum)
    sieve.drop("dissent", lambda left: new.dissent[left] > limits.dissent)
    sieve.drop("duplicate", lambda left: _repeated(new, scaled, left, limits.duplicates))
    sieve.drop("client and day", lambda left: _over_a_day(new, left, limits.per_client_day))
    sieve.drop("client share", capped)
    if limits.outliers:
        sieve.drop("outlier", lambda left: _outlying(new, scaled, left, limits.outliers))
    if limits.label_noise:
        sieve.drop("label noise", lambda left: mislabelled(new.subset(left), old))
    sieve.drop("client share", capped)  # what others lost makes one client's share larger
    sieve.drop("too few", lambda left: np.full(len(left), len(left) < limits.fewest))
    return Selection(sieve.reason == "", sieve.reason)


REASONS = (
    "quorum",
    "dissent",
    "duplicate",
    "client and day",
    "client share",
    "outlier",
    "label noise",
    "too few",
)  # fmt: skip


def _standardized(features: Floats, old: Rows) -> Floats:
    scale = old.features.std(0).clip(1e-3)
    scaled: Floats = ((features - old.features.mean(0)) / scale).astype(np.float32)
    return scaled


def _repeated(new: Reviewed, scaled: Floats, left: NDArray[np.intp], radius: float) -> Mask:
    """Rows with the same label as one that stays, and nearer to it than `radius`."""
    drop = np.zeros(len(left), bool)
    for mark in (False, True):
        same = np.flatnonzero(new.suspicious[left] == mark)
        if not len(same):
            continue
        points = scaled[left[same]]
        near_by: Sequence[list[int]] = list(KDTree(points).query_ball_point(points, radius))  # type: ignore[arg-type]
        for first, near in enumerate(near_by):
            if not drop[same[first]]:
                drop[same[[other for other in near if other > first]]] = True
    return drop


def _over_a_day(new: Reviewed, left: NDArray[np.intp], most: int) -> Mask:
    groups = list(zip(new.client[left].tolist(), new.day[left].tolist(), strict=True))
    return _rank(groups) >= most


def _over_client_share(new: Reviewed, left: NDArray[np.intp], *, share: float) -> Mask:
    """Beyond the largest m with m <= share * sum over clients of min(their rows, m)."""
    clients = new.client[left].tolist()
    counts = np.unique(new.client[left], return_counts=True)[1]
    allowed = [m for m in range(counts.max() + 1) if m <= share * np.minimum(counts, m).sum()]
    return _rank(clients) >= allowed[-1]


def _rank(groups: Sequence[object]) -> NDArray[np.int64]:
    """The place of each row among those of its group."""
    seen: dict[object, int] = {}
    ranks = []
    for group in groups:
        ranks.append(seen.get(group, 0))
        seen[group] = ranks[-1] + 1
    return np.array(ranks, np.int64)


def _outlying(new: Reviewed, scaled: Floats, left: NDArray[np.intp], most: float) -> Mask:
    """Spectral signatures (Tran, Li & Madry 2018), within each label.

    Squared projections on the largest singular vector of the centred rows; those too many median
    absolute deviations above the median go. The paper drops a fixed share; so would an honest
    round lose rows.
    """
    drop = np.zeros(len(left), bool)
    for mark in (False, True):
        same = np.flatnonzero(new.suspicious[left] == mark)
        if len(same) < 8:
            continue
        centred = scaled[left[same]] - scaled[left[same]].mean(0)
        direction = np.linalg.svd(centred, full_matrices=False)[2][0]
        length = np.abs(centred @ direction)
        middle = np.median(length)
        spread = 1.4826 * np.median(np.abs(length - middle))
        drop[same] = length > middle + most * max(spread, 1e-6)
    return drop


def described(selection: Selection, limits: Limits) -> Mapping[str, object]:
    """What the manifest says of a selection, as JSON."""
    return {"limits": asdict(limits), **selection.counts()}
