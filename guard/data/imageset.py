"""A labelled set of images, held in memory as bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guard.errors import InputError


@dataclass(frozen=True)
class ImageSet:
    """Images of one size with their labels.

    images:  uint8 (N, H, W, C), C is 1 or 3
    labels:  int64 (N,), indices into `classes`
    classes: the K class names
    groups:  int64 (N,) or None; images of one group (frames of one video track) are correlated
             and must stay on the same side of every split
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    groups: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise InputError(f"images must be uint8 (N, H, W, C), not {_form(self.images)}")
        for name, array in (("labels", self.labels), ("groups", self.groups)):
            if array is not None and (array.dtype != np.int64 or array.shape != (len(self),)):
                raise InputError(f"{name} must be int64 ({len(self)},), not {_form(array)}")
        if len(self) and (self.labels.min() < 0 or self.labels.max() >= len(self.classes)):
            raise InputError(
                f"labels reach from {self.labels.min()} to {self.labels.max()}, "
                f"but there are {len(self.classes)} classes"
            )

    def __len__(self) -> int:
        return int(self.images.shape[0])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image, as networks and packs have it."""
        height, width, channels = self.images.shape[1:]
        return channels, height, width

    def pixels(self) -> NDArray[np.float32]:
        """float32 (N, C, H, W) in [0, 1]; a new array."""
        turned = np.ascontiguousarray(self.images.transpose(0, 3, 1, 2))
        return turned.astype(np.float32) / np.float32(255)

    def digest(self) -> str:
        """SHA-256 over pixels and labels, in their order: which pictures these are."""
        found = hashlib.sha256(np.ascontiguousarray(self.images).tobytes())
        found.update(self.labels.tobytes())
        return found.hexdigest()

    def subset(self, index: ArrayLike | slice) -> ImageSet:
        """The images that `index` (integers, a boolean mask or a slice) picks, in its order."""
        at = index if isinstance(index, slice) else np.asarray(index)
        if not isinstance(at, slice) and at.size == 0:
            at = at.astype(np.int64)
        groups = None if self.groups is None else self.groups[at]
        return ImageSet(self.images[at], self.labels[at], self.classes, groups)

    def split_by_group(self, fraction: float, *, seed: int) -> tuple[ImageSet, ImageSet]:
        """Split into (rest, held out); about `fraction` of every class's groups is held out.

        Without groups every image is its own group. Both halves keep the order of the set. A
        class with at least two groups is on both sides, one with a single group only in the rest.
        """
        if not 0.0 < fraction < 1.0:
            raise InputError(f"the held-out fraction must lie between 0 and 1, not {fraction}")
        names = np.arange(len(self)) if self.groups is None else self.groups
        unique, first, member = np.unique(names, return_index=True, return_inverse=True)
        held = _draw_per_class(self.labels[first], fraction, np.random.default_rng(seed))
        out = held[member.reshape(-1)] if len(unique) else np.zeros(0, bool)
        return self.subset(~out), self.subset(out)


def concatenate(sets: Sequence[ImageSet]) -> ImageSet:
    """One set out of several of the same classes; groups are kept when every set has them."""
    if not sets:
        raise InputError("nothing to concatenate")
    classes = sets[0].classes
    if any(one.classes != classes for one in sets):
        raise InputError("sets with different classes cannot be joined")
    groups = [one.groups for one in sets if one.groups is not None]
    return ImageSet(
        np.concatenate([one.images for one in sets]),
        np.concatenate([one.labels for one in sets]),
        classes,
        np.concatenate(groups) if len(groups) == len(sets) else None,
    )


def _draw_per_class(
    labels: NDArray[np.int64], fraction: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Which groups (labels (G,): the class of each) are held out."""
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        at = np.flatnonzero(labels == label)
        count = min(max(1, round(fraction * len(at))), len(at) - 1)
        held[rng.permutation(at)[:count]] = True
    return held


def _form(array: NDArray[np.generic]) -> str:
    return f"{array.dtype} {array.shape}"
