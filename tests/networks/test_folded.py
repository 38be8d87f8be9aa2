"""The fused twin that training attacks."""

import pytest
import torch

from guard.networks import Folded, build

SHAPES = [
    ("plain", {"width": 4}),
    ("residual", {"width": 4}),
    ("preact", {"depth": 10, "width": 4}),
]


@pytest.mark.parametrize(("name", "options"), SHAPES)
def test_the_twin_follows_a_network_that_learns(name: str, options: dict[str, int]) -> None:
    """After a refresh it answers as the network does in eval mode, whatever was learned since."""
    generator = torch.Generator().manual_seed(0)
    network = build(name, classes=3, **options).train()
    images = torch.rand((8, 3, 8, 8), generator=generator)
    network(images)
    folded = Folded(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    network(images)
    network.eval()
    stale = folded.twin(images)
    folded.refresh()
    assert not torch.allclose(stale, network(images), atol=1e-3)
    assert torch.allclose(folded.twin(images), network(images), atol=1e-5)
    assert not any(p.requires_grad for p in folded.twin.parameters())


def test_a_network_without_batch_norm_is_its_own_twin() -> None:
    """Group norm cannot be folded away: nothing is copied."""
    network = build("plain", classes=3, width=4, norm="group")
    assert Folded(network).twin is network
