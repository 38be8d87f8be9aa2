"""Decode one PNG, JPEG or WebP file into bytes, its size read before a pixel is."""

from __future__ import annotations

import io
import re
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from guard.errors import InputError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "PPM")
MAX_PIXELS = 4096 * 4096


def decode(
    data: bytes, *, name: str, channels: int | None = None, size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """The picture as uint8 (H, W, C).

    name:     what errors call the picture
    channels: 1 or 3; None keeps a greyscale picture at 1 and turns every other into 3
    size:     (H, W) to resize to (bilinear, antialiased); None keeps the picture's own
    InputError when the bytes are no picture, are cut short, or claim more than MAX_PIXELS.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        if picture.width * picture.height > MAX_PIXELS:
            raise InputError(f"{name}: {picture.width}x{picture.height} pixels are too many")
        picture = picture.convert(_mode(picture, channels))
        if size is not None and picture.size != (size[1], size[0]):
            picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on hostile bytes
        why = re.sub(r" <[^>]*>", "", str(error))  # an address in memory says nothing
        raise InputError(f"{name}: not a readable picture ({why})") from error
    array = np.asarray(picture, dtype=np.uint8)
    return array[:, :, None] if array.ndim == 2 else array


def _mode(picture: Image.Image, channels: int | None) -> str:
    grey = picture.mode in ("1", "L", "LA") if channels is None else channels == 1
    return "L" if grey else "RGB"
