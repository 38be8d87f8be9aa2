"""Two clusters and a few directions: what both searches for triggers need, in numpy."""

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]


def directions(centred: Floats, count: int) -> Floats:
    """The top right singular vectors (count, F) of centred points (N, F)."""
    N, F = centred.shape
    if N < F:  # the smaller of the two Gram matrices
        left = np.linalg.eigh(centred @ centred.T)[1][:, ::-1][:, :count]
        right = (centred.T @ left).T
        unit: Floats = right / np.maximum(np.linalg.norm(right, axis=1, keepdims=True), 1e-12)
        return unit
    rows: Floats = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :count].T
    return rows


def two_means(points: Floats, start: Mask, *, rounds: int = 50) -> Mask:
    """Two clusters of points (N, F) by Lloyd's rounds from a first guess (N,).

    The guess itself is returned when a cluster runs empty.
    """
    mask = start
    for _ in range(rounds):
        if mask.all() or not mask.any():
            return start
        ours, theirs = points[mask].mean(0), points[~mask].mean(0)
        closer = ((points - ours) ** 2).sum(1) < ((points - theirs) ** 2).sum(1)
        if (closer == mask).all():
            break
        mask = closer
    return mask


def spread_within(points: Floats, mask: Mask) -> float:
    """Sum of squared distances to the centres of the two clusters."""
    parts = [points[side] for side in (mask, ~mask) if side.any()]
    return float(sum(((part - part.mean(0)) ** 2).sum() for part in parts))
