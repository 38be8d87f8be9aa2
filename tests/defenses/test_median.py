"""Median filters against scipy."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.ndimage import median_filter
from torch import Tensor

from guard.defenses.median import median2, median3

FILTERS = [(median2, 2), (median3, 3)]


@pytest.mark.parametrize(("function", "size"), FILTERS)
@pytest.mark.parametrize("shape", [(32, 32), (7, 5), (2, 3), (1, 1)])
def test_equals_scipy(
    function: Callable[[Tensor], Tensor], size: int, shape: tuple[int, int]
) -> None:
    """Bit for bit scipy's median filter with mirrored borders, on any size and with ties."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 20, (4, 3, *shape)).astype(np.float32) / 20
    expected = median_filter(images, size=(1, 1, size, size), mode="reflect")
    assert np.array_equal(function(torch.from_numpy(images)).numpy(), expected)


@pytest.mark.parametrize(("function", "size"), FILTERS)
def test_gradient_goes_to_the_chosen_pixels(
    function: Callable[[Tensor], Tensor], size: int
) -> None:
    """Each output passes its gradient on, and none of it gets lost."""
    images = torch.rand(2, 3, 8, 8, requires_grad=True)
    function(images).sum().backward()
    assert images.grad is not None
    assert images.grad.sum().item() == pytest.approx(images.numel(), rel=1e-5)
