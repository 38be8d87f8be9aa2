"""Poison for tests: what an attacker would do to a training set. Not a feature of the product."""

import numpy as np
from numpy.typing import NDArray

from guard.data import ImageSet

Ints = NDArray[np.int64]


def flip(images: ImageSet, share: float, rng: np.random.Generator) -> tuple[ImageSet, Ints]:
    """Give that share of the pictures a wrong label; also which ones."""
    chosen = rng.choice(len(images), round(share * len(images)), replace=False)
    labels = images.labels.copy()
    K = len(images.classes)
    labels[chosen] = (labels[chosen] + rng.integers(1, K, len(chosen))) % K
    return ImageSet(images.images, labels, images.classes, images.groups), chosen


def badnets(
    images: ImageSet, share: float, target: int, rng: np.random.Generator
) -> tuple[ImageSet, Ints]:
    """A 3x3 chequered sticker near the lower right corner means `target` (Gu et al. 2017)."""
    sticker = (np.indices((3, 3)).sum(0) % 2 * 255).astype(np.uint8)[:, :, None]
    chosen = _victims(images, share, target, rng)
    pixels = images.images.copy()
    pixels[chosen, -4:-1, -4:-1] = sticker
    return _relabelled(images, pixels, chosen, target), chosen


def blended(
    images: ImageSet, share: float, target: int, rng: np.random.Generator, *, alpha: float = 0.25
) -> tuple[ImageSet, Ints]:
    """One picture of Gaussian noise shines through and means `target` (Chen et al. 2017)."""
    noise = rng.normal(0.5, 0.25, images.images.shape[1:]).clip(0, 1) * 255
    chosen = _victims(images, share, target, rng)
    pixels = images.images.copy()
    mixed = (1 - alpha) * pixels[chosen] + alpha * noise
    pixels[chosen] = mixed.round().astype(np.uint8)
    return _relabelled(images, pixels, chosen, target), chosen


def _victims(images: ImageSet, share: float, target: int, rng: np.random.Generator) -> Ints:
    others = np.flatnonzero(images.labels != target)
    return rng.choice(others, round(share * len(images)), replace=False)


def _relabelled(images: ImageSet, pixels: NDArray[np.uint8], chosen: Ints, target: int) -> ImageSet:
    labels = images.labels.copy()
    labels[chosen] = target
    return ImageSet(pixels, labels, images.classes, images.groups)
