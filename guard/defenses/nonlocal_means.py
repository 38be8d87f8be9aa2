"""Non-local means (Buades et al. 2005), the third squeezer of Xu et al. 2018; optional, dearer.

Each pixel becomes a mean of the pixels around it, weighted by how alike their patches are:
w = exp(-d2 / h^2), d2 the mean squared difference of two patches. All channels
share the weights.
"""

import torch
from torch import Tensor
from torch.nn import functional


def nonlocal_means(images: Tensor, *, search: int, patch: int, strength: float) -> Tensor:
    """(N, C, H, W) in [0, 1] to the same shape.

    `search` and `patch` are odd window sides in pixels, `strength` is h in units of a pixel.
    The image is extended by its border pixels.
    """
    reach, H, W = search // 2, images.shape[-2], images.shape[-1]
    wide = functional.pad(images, [reach + patch // 2] * 4, mode="replicate")
    inner = _window(wide, reach, reach, H + patch - 1, W + patch - 1)
    total, weights = torch.zeros_like(images), torch.zeros_like(images[:, :1])
    for y in range(search):
        for x in range(search):
            moved = _window(wide, y, x, H + patch - 1, W + patch - 1)
            distance = functional.avg_pool2d(
                (moved - inner).square().mean(1, keepdim=True), patch, stride=1
            )
            weight = torch.exp(-distance / strength**2)
            total = total + weight * _window(moved, patch // 2, patch // 2, H, W)
            weights = weights + weight
    return total / weights


def _window(x: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    return x[..., top : top + height, left : left + width]
