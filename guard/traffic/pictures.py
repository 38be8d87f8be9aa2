"""A few numbers about a picture that a camera or the night changes, and an attack hardly does.

Letters: N images, C H W, T = 5 numbers.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

NUMBERS = ("brightness", "contrast", "sharpness", "tint", "blocks")
ROWS = 32  # of a picture that are looked at
BLOCK = 8  # pixels of JPEG's blocks
FLAT = 1e-4  # differences between neighbours below this are none


def numbers(images: Floats) -> Floats:
    """(N, T): of images (N, C, H, W) in [0, 1]; some rows of large ones stand for all."""
    rows = images[:, :, :: max(1, images.shape[2] // ROWS)]
    grey = rows.mean(1)  # (N, h, W)
    steps = np.abs(np.diff(rows, axis=3)) if rows.shape[3] > 1 else np.zeros_like(rows)
    spread = grey.std((1, 2))
    # How fine what there is of contrast is: a darker picture is as sharp as before.
    fine = np.log(steps.mean((1, 2, 3)) + FLAT) - np.log(spread + FLAT)
    tint = (rows[:, 0] - rows[:, -1]).mean((1, 2))
    columns = [grey.mean((1, 2)), spread, fine, tint, _blocks(rows)]
    return np.stack(columns, 1).astype(np.float32)


def _blocks(rows: Floats) -> Floats:
    """(N,): how much more a picture bends where JPEG's blocks meet than inside them."""
    steps = np.diff(rows, axis=3)
    bends = np.abs(steps[..., 1:-1] - (steps[..., :-2] + steps[..., 2:]) / 2).mean((1, 2))
    border = np.arange(1, bends.shape[1] + 1) % BLOCK == BLOCK - 1
    if not border.any():
        return np.zeros(len(rows), np.float32)
    inside = np.log(bends[:, ~border].mean(1) + FLAT)
    found: Floats = (np.log(bends[:, border].mean(1) + FLAT) - inside).astype(np.float32)
    return found
