"""Non-local means against the definition, pixel by pixel."""

import numpy as np
import torch

from guard.defenses.nonlocal_means import nonlocal_means


def by_definition(image: np.ndarray, search: int, patch: int, strength: float) -> np.ndarray:
    """One image (C, H, W), four nested loops."""
    reach, half, (C, H, W) = search // 2, patch // 2, image.shape
    wide = np.pad(image, ((0, 0), *[(reach + half, reach + half)] * 2), mode="edge")
    out = np.zeros((C, H, W))
    for y, x in np.ndindex(H, W):
        cy, cx, total = y + reach + half, x + reach + half, 0.0
        here = wide[:, cy - half : cy + half + 1, cx - half : cx + half + 1]
        for dy, dx in np.ndindex(search, search):
            ny, nx = cy + dy - reach, cx + dx - reach
            there = wide[:, ny - half : ny + half + 1, nx - half : nx + half + 1]
            weight = np.exp(-((here - there) ** 2).mean() / strength**2)
            out[:, y, x] += weight * wide[:, ny, nx]
            total += weight
        out[:, y, x] /= total
    return out


def test_equals_the_definition() -> None:
    """The shifted-window form gives what the textbook loop gives."""
    images = np.random.default_rng(0).random((2, 3, 9, 7)).astype(np.float32)
    ours = nonlocal_means(torch.from_numpy(images), search=5, patch=3, strength=0.3)
    theirs = np.stack([by_definition(image, 5, 3, 0.3) for image in images])
    assert np.abs(ours.numpy() - theirs).max() < 1e-5
