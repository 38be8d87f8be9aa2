"""Who may see which pictures: four disjoint parts, split by group where pictures are correlated."""

from dataclasses import dataclass

import numpy as np
import torch

from guard.data import ImageSet
from guard.errors import InputError
from guard.training.classifier import Pictures

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


def pictures(images: ImageSet, *, limit: int | None = None, seed: int = 0) -> Pictures:
    """As tensors (N, C, H, W); `limit` draws that many at random, in a fixed order."""
    if limit is not None and limit < len(images):
        images = images.subset(np.random.default_rng(seed).permutation(len(images))[:limit])
    turned = np.ascontiguousarray(images.images.transpose(0, 3, 1, 2))
    return Pictures(torch.from_numpy(turned), torch.from_numpy(images.labels))
