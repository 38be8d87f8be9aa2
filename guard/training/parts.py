"""Who may see which pictures: four disjoint parts, split by group where pictures are correlated."""

from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from guard.data import ImageSet, concatenate
from guard.data.twins import twins
from guard.errors import InputError
from guard.training.pictures import Pictures

SMALLEST = 120  # calibration images; fewer cannot resolve a false-alarm budget of 1%


@dataclass(frozen=True)
class Parts:
    """fit: classifiers train on it. rehearse: the detector does. calibrate: thresholds come from
    it. test: everything published is measured on it."""

    fit: ImageSet
    rehearse: ImageSet
    calibrate: ImageSet
    test: ImageSet

    def counts(self) -> dict[str, int]:
        """Images in each part."""
        return {
            "fit": len(self.fit),
            "rehearse": len(self.rehearse),
            "calibrate": len(self.calibrate),
            "test": len(self.test),
        }

    def digests(self) -> dict[str, str]:
        """SHA-256 over pixels and labels of each part, in its order: which data it was."""
        return {one.name: getattr(self, one.name).digest() for one in fields(self)}


def divide(train: ImageSet, test: ImageSet | None, *, seed: int = 0) -> Parts:
    """Divide a data set; without a test split a fifth of the training pictures becomes one.

    Raises InputError when the parts would be too small to calibrate.
    """
    if test is None:
        train, test = train.split_by_group(0.2, seed=seed + 1)
    fit, rehearse = train.split_by_group(0.12, seed=seed)
    examined, calibrate = test.split_by_group(0.4, seed=seed)
    if len(calibrate) < SMALLEST:
        raise InputError(
            f"{len(calibrate)} pictures are left to calibrate with and {SMALLEST} are needed: "
            f"the test split needs about {SMALLEST * 5 // 2} pictures"
        )
    return Parts(fit, rehearse, calibrate, examined)


def divide_held(train: ImageSet, held: ImageSet, *, seed: int = 0) -> Parts:
    """Train on one set and judge by another: detector, thresholds and figures come from `held`.

    For untouched pictures beside a training set that went through JPEG. Training pictures that
    have a twin in `held` are left out. Raises InputError when classes differ or too few are left.
    """
    if train.classes != held.classes:
        raise InputError("the held pictures have other classes than the training pictures")
    fit = train.subset(~twins(train, held))
    examined, others = held.split_by_group(0.6, seed=seed)
    rehearse, calibrate = others.split_by_group(0.5, seed=seed)
    if len(calibrate) < SMALLEST:
        raise InputError(
            f"{len(calibrate)} held pictures are left to calibrate with and {SMALLEST} are needed"
        )
    return Parts(fit, rehearse, calibrate, examined)


def enlarged(parts: Parts, extra: ImageSet) -> Parts:
    """The same parts with more to train on; what looks like a picture held back is left out."""
    for held in (parts.rehearse, parts.calibrate, parts.test):
        extra = extra.subset(~twins(extra, held))
    ungrouped = replace(parts.fit, groups=None)
    return replace(parts, fit=concatenate([ungrouped, replace(extra, groups=None)]))


def pictures(images: ImageSet, *, limit: int | None = None, seed: int = 0) -> Pictures:
    """As tensors (N, C, H, W); `limit` draws that many at random, in a fixed order."""
    if limit is not None and limit < len(images):
        images = images.subset(np.random.default_rng(seed).permutation(len(images))[:limit])
    turned = np.ascontiguousarray(images.images.transpose(0, 3, 1, 2))
    return Pictures(torch.from_numpy(turned), torch.from_numpy(images.labels))
