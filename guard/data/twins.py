"""Pictures of one set that are also in another, whatever compression did to them."""

import numpy as np
from numpy.typing import NDArray

from guard.data.imageset import ImageSet
from guard.errors import InputError

REACH = 6.0  # root mean square over the pooled picture, of 255; JPEG at quality 75 stays below
GRID = 8
BLOCK = 2048


def twins(images: ImageSet, others: ImageSet, *, reach: float = REACH) -> NDArray[np.bool_]:
    """Which of `images` (N,) look like one of `others`, compared as 8x8 pooled pictures.

    Raises InputError when the sets' pictures have different shapes.
    """
    if images.shape != others.shape:
        raise InputError(f"pictures of {images.shape} cannot be compared with {others.shape}")
    here, there = _pooled(images), _pooled(others)
    nearest = np.full(len(here), np.inf, np.float32)
    for start in range(0, len(there), BLOCK):
        block = there[start : start + BLOCK]
        squares = (here**2).sum(1)[:, None] - 2 * here @ block.T + (block**2).sum(1)
        nearest = np.minimum(nearest, squares.min(1, initial=np.inf))
    close: NDArray[np.bool_] = nearest <= reach**2 * here.shape[1]
    return close


def _pooled(images: ImageSet) -> NDArray[np.float32]:
    """(N, 64 C): means over a grid, of 255."""
    _, height, width = images.shape
    rows = np.linspace(0, height, GRID + 1).astype(int)[:-1]
    columns = np.linspace(0, width, GRID + 1).astype(int)[:-1]
    out = np.empty((len(images), GRID * GRID * images.shape[0]), np.float32)
    for start in range(0, len(images), BLOCK):
        block = images.images[start : start + BLOCK].astype(np.float32)
        summed = np.add.reduceat(np.add.reduceat(block, rows, axis=1), columns, axis=2)
        area = np.diff([*rows, height])[:, None] * np.diff([*columns, width])
        out[start : start + BLOCK] = (summed / area[None, :, :, None]).reshape(len(block), -1)
    return out
