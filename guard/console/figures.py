"""Pictures for a page: PNG bytes, and what a squeezer took away made visible.

Letters: C H W.
"""

import base64
import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Floats = NDArray[np.float32]
LARGEST_GAIN = 16
USUAL = 95  # percentile of the changes that is made well visible; a sticker's may burn out
SMALLEST = 1 / 255  # a change of one grey level


class Residual(NamedTuple):
    """A difference as a picture: grey where nothing changed."""

    png: bytes
    gain: int  # times that it is amplified
    largest: float  # change of a pixel, in grey levels of 255
    mean: float  # likewise


def png(image: Floats) -> bytes:
    """A picture (C, H, W) in [0, 1] as a PNG file; more than three channels: the first alone."""
    levels = np.rint(np.nan_to_num(np.clip(image, 0, 1)) * 255).astype(np.uint8)
    picture = Image.fromarray(levels.transpose(1, 2, 0) if len(levels) == 3 else levels[0])
    out = io.BytesIO()
    picture.save(out, "PNG", compress_level=1)
    return out.getvalue()


def residual(original: Floats, view: Floats) -> Residual:
    """What `view` lacks of the original, (C, H, W) both, amplified to be seen."""
    difference = original - view
    changes = np.abs(difference)
    gain = int(np.clip(0.3 / max(float(np.percentile(changes, USUAL)), SMALLEST), 1, LARGEST_GAIN))
    return Residual(
        png(np.float32(0.5) + gain * difference),
        gain,
        float(changes.max()) * 255,
        float(changes.mean()) * 255,
    )


def median(image: Floats) -> Floats:
    """The picture (C, H, W) under a 3x3 median: what any console can show without the pack."""
    channels = [
        np.asarray(
            Image.fromarray(np.rint(c * 255).astype(np.uint8)).filter(ImageFilter.MedianFilter(3))
        )
        for c in np.clip(image, 0, 1)
    ]
    return np.stack(channels).astype(np.float32) / np.float32(255)


def inline(data: bytes) -> str:
    """A PNG as a `data:` address, so that a page and its pictures are one audited answer."""
    return "data:image/png;base64," + base64.b64encode(data).decode()
