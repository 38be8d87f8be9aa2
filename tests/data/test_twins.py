"""Pictures of one set that are also in another."""

import io

import numpy as np
import pytest
from PIL import Image

from guard.data import ImageSet, signs
from guard.data.twins import twins
from guard.errors import InputError


def through_jpeg(images: ImageSet, quality: int) -> ImageSet:
    """The same pictures, compressed and read back."""
    seen = []
    for picture in images.images:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=quality)
        seen.append(np.asarray(Image.open(file)))
    return ImageSet(np.stack(seen), images.labels, images.classes)


def test_compressed_pictures_are_recognised() -> None:
    """A picture that went through JPEG at quality 75 is a twin; one that is in neither is not."""
    known, strangers = signs.make(60, seed=1), signs.make(60, seed=2)
    compressed = through_jpeg(known, 75)
    assert twins(compressed, known).all()
    assert twins(strangers, known).mean() <= 0.05


def test_nobody_is_a_twin_of_nothing() -> None:
    """An empty set to compare with leaves everybody in."""
    known = signs.make(5, seed=1)
    assert not twins(known, known.subset(slice(0, 0))).any()


def test_sizes_that_differ_are_refused() -> None:
    """The error names both shapes."""
    with pytest.raises(InputError, match=r"\(3, 32, 32\).*\(3, 16, 16\)"):
        twins(signs.make(2, seed=1), signs.make(2, seed=1, size=16))


def test_odd_sizes_pool_to_exact_means() -> None:
    """A picture whose size is no multiple of the grid is pooled by area: a flat one stays flat."""
    flat = ImageSet(np.full((1, 33, 29, 3), 77, np.uint8), np.zeros(1, np.int64), ("a",))
    other = ImageSet(np.full((1, 33, 29, 3), 84, np.uint8), np.zeros(1, np.int64), ("a",))
    assert twins(flat, flat).all()
    assert not twins(flat, other).any()
    assert twins(flat, other, reach=7.1).all()
