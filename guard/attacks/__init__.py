"""Attacks: how well does a classifier stand, and what does a detector see?

Every attack is a plain function in a file of its own,

    attack(model, images, labels, *, ..., generator=None) -> adversarial images

`model` maps pixels (N, C, H, W) in [0, 1] to logits (N, K) and is in eval mode on the images'
device; it is left as it was (mode, weights, gradients). The result has the images' shape and lies
in [0, 1]. Randomness comes from `generator` alone, which lives on the images' device. Each module
declares its NORM. Score results after `round8`: a picture that travels has 8 bits.

`catalogue.py` has them all by name. A new one wears `craft.crafts`, which keeps the promises above.
"""

import torch
from torch import Tensor


def round8(images: Tensor) -> Tensor:
    """Round pixels in [0, 1] to the 8 bits of a picture file: the nearest multiple of 1/255."""
    return torch.round(images * 255) / 255
