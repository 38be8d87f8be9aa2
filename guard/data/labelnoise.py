"""Confident learning (Northcutt, Jiang & Chuang 2021): which labels are probably wrong.

Needs out-of-fold probabilities: each picture judged by a classifier that was not trained on it. A
class's threshold is the mean confidence of the pictures that carry its label; a picture that is
above the threshold of another class, and of none it resembles more, counts as that class. The
confident joint is the table of those counts. Known limit: a weak classifier's hard pictures look
like wrong labels, so the list is ranked, and only its sure end is called sure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Suspects:
    """N labels, judged.

    joint:     int64 (K, K), pictures by given label (row) and confident label (column)
    off:       bool (N,), confidently another class: the off-diagonal of the joint
    suggested: int64 (N,), the confident label; -1 without one
    margin:    float32 (N,), P(given) - P(most likely other); -1 is the surest mistake
    """

    joint: Ints
    off: NDArray[np.bool_]
    suggested: Ints
    margin: Floats


def confident_learning(probabilities: Floats, labels: Ints) -> Suspects:
    """Judge labels (N,) by out-of-fold probabilities (N, K)."""
    N, K = probabilities.shape
    given = probabilities[np.arange(N), labels]
    mass = np.bincount(labels, given, K)
    count = np.bincount(labels, minlength=K)
    thresholds = np.where(count > 0, mass / np.maximum(count, 1), np.inf)
    above = probabilities >= thresholds - 1e-6
    best = np.where(above, probabilities, -1.0).argmax(1)
    confident = above.any(1)
    joint = np.zeros((K, K), np.int64)
    np.add.at(joint, (labels[confident], best[confident]), 1)
    others = probabilities.copy()
    others[np.arange(N), labels] = -1.0
    return Suspects(
        joint=joint,
        off=confident & (best != labels),
        suggested=np.where(confident, best, -1).astype(np.int64),
        margin=(given - others.max(1)).astype(np.float32),
    )
