"""The JPEG idea as a differentiable module: quantise 8x8 DCT blocks (Das et al. 2018, SHIELD).

The forward transform is done in whole numbers (8-bit pixels, an 11-bit basis, sums below 2**24),
so that every implementation of float32 finds the same coefficients and rounds them alike.
There is no chroma subsampling and no entropy coding: neither changes what a classifier sees much.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from guard.defenses import straight_through

SCALE = 8192.0  # the basis in whole numbers: at most 2009 of them, exact even in TF32
# JPEG Annex K, quality 50.
LUMINANCE = """16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56
          14 17 22 29 51 87 80 62  18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92
          49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99"""
CHROMINANCE = """17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99
            47 66 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99
            99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99"""
# JFIF's RGB to YCbCr and back; 256ths, so that the way there is exact as well.
TO_YCC = [[77, 150, 29], [-43, -85, 128], [128, -107, -21]]
TO_RGB = [[1.0, 0.0, 1.402], [1.0, -0.344136, -0.714136], [1.0, 1.772, 0.0]]


def basis() -> Tensor:
    """The 64 orthonormal cosines, (64, 1, 8, 8), in whole numbers of 1 / SCALE."""
    n = torch.arange(8, dtype=torch.float64)
    rows = torch.cos((2 * n[None] + 1) * n[:, None] * math.pi / 16) / 2
    rows[0] = math.sqrt(1 / 8)
    waves = torch.einsum("ux,vy->uvxy", rows, rows).reshape(64, 1, 8, 8)
    return torch.round(waves * SCALE).to(torch.float32)


def table(text: str, quality: int) -> Tensor:
    """The quantiser steps (64,) of libjpeg's quality 1 to 100."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = torch.tensor([int(number) for number in text.split()])
    return ((steps * scale + 50) // 100).clamp(1, 255).to(torch.float32)


def round_through(x: Tensor) -> Tensor:
    """Round half to even, with the gradient of the identity."""
    return straight_through(torch.round(x), x)


class Quantizer(nn.Module):
    """Images in [0, 1] through a JPEG-like quantiser of the given quality, and back.

    With `color` the three channels are quantised as YCbCr, otherwise each as if it were luma.
    """

    basis: Tensor
    waves: Tensor
    steps: Tensor
    to_ycc: Tensor
    to_rgb: Tensor

    def __init__(self, quality: int, *, color: bool = False) -> None:
        super().__init__()
        if not 1 <= quality <= 100:
            raise ValueError(f"quality is 1 to 100, got {quality}")
        self.color = color
        tables = [table(LUMINANCE, quality)] + [
            table(CHROMINANCE if color else LUMINANCE, quality)
        ] * 2
        steps = (torch.stack(tables) if color else tables[0][None]) * SCALE
        constants = {
            "basis": basis(),
            "waves": basis() / SCALE / 255.0,
            "steps": steps.reshape(1, -1, 64, 1, 1),
            "to_ycc": torch.tensor(TO_YCC).reshape(3, 3, 1, 1) / 256.0,
            "to_rgb": torch.tensor(TO_RGB).reshape(3, 3, 1, 1),
        }
        for name, constant in constants.items():
            self.register_buffer(name, constant, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape; sides that are no multiple of 8 are extended."""
        C, H, W = images.shape[-3:]
        pixels = round_through(images * 255.0) - 128.0
        if self.color:
            pixels = round_through(functional.conv2d(pixels, self.to_ycc))
        planes = _extend(pixels, -H % 8, -W % 8)
        rows, columns = planes.shape[-2:]
        waves = functional.conv2d(planes.reshape(-1, 1, rows, columns), self.basis, stride=8)
        waves = waves.reshape(-1, C, 64, rows // 8, columns // 8)
        kept = round_through(waves / self.steps) * (self.steps / SCALE)
        kept = kept.reshape(-1, 64, rows // 8, columns // 8)
        out = functional.conv_transpose2d(kept, self.waves, stride=8)
        out = out.reshape(-1, C, rows, columns)[..., :H, :W]
        if self.color:
            out = functional.conv2d(out, self.to_rgb)
        return (out + 128.0 / 255.0).clamp(0.0, 1.0)


def _extend(x: Tensor, rows: int, columns: int) -> Tensor:
    """Repeat the last row and column, as JPEG does."""
    if rows:
        x = torch.cat([x, x[..., -1:, :].expand(*x.shape[:-2], rows, -1)], dim=-2)
    if columns:
        x = torch.cat([x, x[..., -1:].expand(*x.shape[:-1], columns)], dim=-1)
    return x
