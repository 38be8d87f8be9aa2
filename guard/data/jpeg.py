"""Have these pictures been through JPEG? Votes of the 64 possible grids (after ZERO, 2021).

JPEG rounds the DCT of aligned 8x8 blocks, most high frequencies to zero. Each picture votes for
the grid position with the most zeros; untouched pictures vote at random, decoded ones for the
corner. (Nikoukhah et al. 2021, "ZERO: a local JPEG grid origin detector".) Not seen: pictures that
were resized after decoding, and very high qualities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.stats import binom

SIDE = 8
SMALL = 0.5  # a DCT coefficient (of 0 to 255) below this counts as zero
FIRST = 3  # coefficients with row + column below this are not looked at: they are large anyway
NULL = 1 / (SIDE * SIDE)


@dataclass(frozen=True)
class Votes:
    """share: estimated share of the pictures that went through JPEG, 0 to 1.
    p_value: of as many votes for the corner if none had. voters: pictures that could vote."""

    share: float
    p_value: float
    voters: int


def grid_votes(crops: Sequence[NDArray[np.uint8]]) -> Votes:
    """Let luma crops (uint8 (h, w), from the pictures' top left corner) vote."""
    corner = voters = 0
    for crop in crops:
        zeros = _zeros(crop)
        best = np.flatnonzero(zeros == zeros.max())
        if len(best) == 1 and min(crop.shape) >= 2 * SIDE:
            voters += 1
            corner += int(best[0] == 0)
    if not voters:
        return Votes(0.0, 1.0, 0)
    share = max(0.0, (corner / voters - NULL) / (1 - NULL))
    return Votes(share, float(binom.sf(corner - 1, voters, NULL)), voters)


def _zeros(crop: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(64,): the share of small coefficients for each position of the grid."""
    windows = sliding_window_view(crop, (SIDE, SIDE)).astype(np.float32)
    coefficients = _DCT @ windows @ _DCT.T
    high = np.add.outer(np.arange(SIDE), np.arange(SIDE)) >= FIRST
    small = (np.abs(coefficients[:, :, high]) < SMALL).mean(2)
    return np.array([small[y::SIDE, x::SIDE].mean() for y in range(SIDE) for x in range(SIDE)])


def _dct() -> NDArray[np.float32]:
    k, n = np.arange(SIDE)[:, None], np.arange(SIDE)[None, :]
    basis = np.cos(np.pi * (2 * n + 1) * k / (2 * SIDE)) * np.sqrt(2 / SIDE)
    basis[0] /= np.sqrt(2)
    rows: NDArray[np.float32] = basis.astype(np.float32)
    return rows


_DCT = _dct()
