"""A few numbers about a picture that a camera or the night changes, and an attack hardly does.

Letters: N images, C H W, T = 4 numbers.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

NUMBERS = ("brightness", "contrast", "sharpness", "tint")
ROWS = 32  # of a picture that are looked at
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
    return np.stack([grey.mean((1, 2)), spread, fine, tint], 1).astype(np.float32)
