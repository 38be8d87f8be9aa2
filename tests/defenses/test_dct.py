"""The DCT quantiser against scipy's transform."""

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn

from guard.defenses.dct import SCALE, Quantizer, basis


def by_scipy(image: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """One channel (H, W) of whole numbers through the quantiser, the slow way."""
    out = np.empty(image.shape)
    for y in range(0, image.shape[0], 8):
        for x in range(0, image.shape[1], 8):
            waves = dctn(image[y : y + 8, x : x + 8] - 128.0, norm="ortho")
            out[y : y + 8, x : x + 8] = idctn(np.round(waves / steps) * steps, norm="ortho")
    return np.clip((out + 128.0) / 255.0, 0, 1)


def test_basis_is_scipys() -> None:
    """The whole-number basis is the orthonormal DCT-II to half a unit of its last place."""
    waves = np.stack([idctn(np.eye(64)[k].reshape(8, 8), norm="ortho") for k in range(64)])
    assert np.abs(basis().numpy()[:, 0] - waves * SCALE).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("quality", [30, 50, 75, 95])
def test_equals_scipy(quality: int) -> None:
    """Quantised images are those that scipy's DCT gives, but for coefficients next to a tie."""
    images = np.random.default_rng(quality).integers(0, 256, (2, 3, 16, 24))
    quantizer = Quantizer(quality)
    steps = quantizer.steps.numpy().reshape(8, 8) / SCALE
    ours = quantizer(torch.from_numpy(images / 255.0).float()).numpy()
    theirs = np.stack([[by_scipy(channel, steps) for channel in image] for image in images])
    assert np.abs(ours - theirs).mean() < 2e-3
    assert np.median(np.abs(ours - theirs)) < 2e-4


def test_table_is_libjpegs() -> None:
    """Quality 75 halves the steps of JPEG's table, quality 100 keeps whole numbers."""
    assert (Quantizer(75).steps[0, 0, :4, 0, 0] / SCALE).tolist() == [8, 6, 5, 8]
    assert set((Quantizer(100).steps / SCALE).flatten().tolist()) == {1}


@pytest.mark.parametrize("shape", [(30, 33), (8, 1), (1, 9)])
def test_any_size(shape: tuple[int, int]) -> None:
    """Sides that are no multiple of eight work and a flat image stays flat."""
    images = torch.full((2, 3, *shape), 100 / 255)
    out = Quantizer(90)(images)
    assert out.shape == images.shape
    assert (out - images).abs().max() < 4 / 255


def test_color_keeps_grey_grey() -> None:
    """Quantised as YCbCr, a grey picture has three equal channels still."""
    grey = torch.rand(2, 1, 16, 16).expand(2, 3, 16, 16)
    out = Quantizer(50, color=True)(grey)
    assert (out - out.mean(1, keepdim=True)).abs().max() < 1e-5


def test_gradient_is_straight_through() -> None:
    """At fine steps the gradient is nearly that of the identity, as BPDA wants it."""
    images = torch.rand(1, 3, 16, 16).mul(0.6).add(0.2).requires_grad_()
    Quantizer(95)(images).square().sum().div(2).backward()
    assert images.grad is not None
    assert (images.grad - images).abs().max() < 0.05


def test_refuses_an_impossible_quality() -> None:
    """Quality is 1 to 100."""
    with pytest.raises(ValueError, match="quality"):
        Quantizer(0)
