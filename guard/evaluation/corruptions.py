"""Benign corruptions (after Hendrycks & Dietterich 2019), in torch: pictures that are worse, not
attacked. Severities are those a camera or a re-encoding produces, not those that hide the object.

`CORRUPTIONS` are the ones that detectors may learn from; evaluation reports these and, separately,
the fixed severities in `REPORTED`.
"""

import io
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

Bytes = NDArray[np.uint8]
Corruption = Callable[[Tensor, torch.Generator], Tensor]


def gaussian_noise(images: Tensor, sigma: Tensor | float, generator: torch.Generator) -> Tensor:
    """Independent noise on every pixel, `sigma` in pixels of [0, 1]."""
    return (images + sigma * torch.randn(images.shape, generator=generator)).clamp(0, 1)


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Blur with a Gaussian of `sigma` pixels, borders replicated."""
    radius = max(1, round(3 * sigma))
    steps = torch.arange(-radius, radius + 1, dtype=images.dtype)
    kernel = torch.exp(-(steps**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, -1)
    channels = images.shape[1]
    padded = F.pad(images, (radius,) * 4, mode="replicate")
    across = F.conv2d(padded, kernel.unsqueeze(2), groups=channels)
    return F.conv2d(across, kernel.unsqueeze(3), groups=channels)


def jpeg(images: Tensor, quality: int) -> Tensor:
    """Through a JPEG file of the given quality and back."""
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    rows = [_through_jpeg(picture, quality) for picture in pixels]
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).float() / 255


def brightness(images: Tensor, factor: float) -> Tensor:
    """All pixels times `factor`, clipped."""
    return (images * factor).clamp(0, 1)


def resample(images: Tensor, factor: float) -> Tensor:
    """Smaller by `factor` and back to size, bilinear."""
    small = F.interpolate(images, scale_factor=factor, mode="bilinear", antialias=True)
    return F.interpolate(small, images.shape[-2:], mode="bilinear").clamp(0, 1)


def _through_jpeg(picture: Bytes, quality: int) -> Bytes:
    grey = picture.shape[2] == 1
    buffer = io.BytesIO()
    Image.fromarray(picture[:, :, 0] if grey else picture).save(buffer, "JPEG", quality=quality)
    decoded = np.array(Image.open(buffer))
    return decoded[:, :, None] if grey else decoded


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


CORRUPTIONS: Mapping[str, Corruption] = {
    "noise": lambda x, g: gaussian_noise(x, 0.06 * torch.rand(len(x), 1, 1, 1, generator=g), g),
    "blur": lambda x, g: gaussian_blur(x, _uniform(0.4, 1.0, g)),
    "jpeg": lambda x, g: jpeg(x, round(_uniform(50, 95, g))),
    "brightness": lambda x, g: brightness(x, _uniform(0.6, 1.5, g)),
    "resample": lambda x, g: resample(x, _uniform(0.6, 0.9, g)),
}
REPORTED: Mapping[str, Corruption] = {
    "Gaussian noise 0.02": lambda x, g: gaussian_noise(x, 0.02, g),
    "Gaussian noise 0.04": lambda x, g: gaussian_noise(x, 0.04, g),
    "Gaussian blur 0.7 px": lambda x, g: gaussian_blur(x, 0.7),  # noqa: ARG005
    "Gaussian blur 1.0 px": lambda x, g: gaussian_blur(x, 1.0),  # noqa: ARG005
    "JPEG quality 75": lambda x, g: jpeg(x, 75),  # noqa: ARG005
    "JPEG quality 50": lambda x, g: jpeg(x, 50),  # noqa: ARG005
}


def corrupt(name: str, images: Tensor, *, generator: torch.Generator) -> Tensor:
    """Images (N, C, H, W) under the named corruption, severity drawn at random."""
    return CORRUPTIONS[name](images, generator)
