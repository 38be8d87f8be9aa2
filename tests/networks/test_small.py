"""The classifiers packs are made of."""

import pytest
import torch

from guard.networks import Normalize, build, flops, fuse, parameters


@pytest.mark.parametrize("name", ["plain", "residual", "broad"])
@pytest.mark.parametrize(("channels", "size"), [(3, 32), (1, 28)])
def test_fusing_changes_nothing(name: str, channels: int, size: int) -> None:
    """Folding normalisation into the convolutions keeps the logits, for colour and grey images."""
    torch.manual_seed(0)
    network = build(name, classes=5, channels=channels, width=4, grid=2)
    images = torch.rand(16, channels, size, size)
    network.train()
    network(images)  # gives the running statistics something to fold
    before = network.eval()(images)
    after = fuse(network)(images)
    assert torch.allclose(before, after, atol=1e-5)
    assert not [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]


def test_contrast_and_light_are_taken_out() -> None:
    """A darker, flatter copy of a picture looks the same behind the first layer."""
    image = torch.rand(1, 3, 8, 8)
    seen = Normalize(floor=1e-4)(torch.cat([image, image * 0.3 + 0.2]))
    assert torch.allclose(seen[0], seen[1], atol=1e-3)


def test_flat_images_stay_finite() -> None:
    """A picture of one colour has no contrast to divide by."""
    assert torch.isfinite(Normalize()(torch.full((1, 3, 8, 8), 0.5))).all()


def test_flops_count_every_product_twice() -> None:
    """One linear layer and one convolution, counted by hand."""
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Flatten(), torch.nn.Linear(4 * 64, 5)
    )
    assert flops(network, (3, 8, 8)) == 2 * (27 * 4 * 64) + 2 * 4 * 64 * 5


def test_parameters_are_counted() -> None:
    """Weights and biases."""
    assert parameters(torch.nn.Linear(3, 2)) == 8
