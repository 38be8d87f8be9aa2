"""Sizes and costs, against papers and by hand."""

from typing import Any

import pytest
import torch
from torch import nn

from guard.networks import build, flops, parameters

PUBLISHED: list[tuple[str, dict[str, Any], int, float]] = [
    # architecture, arguments, parameters, giga multiply-adds at 3x32x32
    ("resnet", {"depth": 18}, 11_173_962, 0.556),
    ("resnet", {"depth": 20}, 272_474, 0.041),
    ("resnet", {"depth": 32}, 466_906, 0.069),
    ("preact", {"depth": 18}, 11_172_170, 0.556),
    ("wide", {"depth": 28, "widen": 10}, 36_479_194, 5.24),
]


@pytest.mark.parametrize(("architecture", "arguments", "count", "cost"), PUBLISHED)
def test_published_sizes(
    architecture: str, arguments: dict[str, Any], count: int, cost: float
) -> None:
    """The networks are those of the papers: same parameters, same multiply-adds."""
    with torch.device("meta"):
        network = build(architecture, classes=10, **arguments)
    assert parameters(network) == count
    assert flops(network, (3, 32, 32)) / 2e9 == pytest.approx(cost, rel=0.02)


def test_flops_count_every_product_twice() -> None:
    """One linear layer and one convolution, counted by hand."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 64, 5))
    assert flops(network, (3, 8, 8)) == 2 * (27 * 4 * 64) + 2 * 4 * 64 * 5


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_norms_cost_nothing(norm: str) -> None:
    """Only convolutions and the head are counted, whatever stands between them."""
    first, third = 3 * 9 * 4 * 64 + 4 * 9 * 4 * 64, 8 * 9 * 16 * 4 + 16 * 9 * 16 * 4
    products = first + (4 * 9 * 8 * 16 + 8 * 9 * 8 * 16) + third + 16 * 5
    assert flops(build("plain", classes=5, width=4, norm=norm), (3, 8, 8)) == 2 * products


def test_attention_is_counted() -> None:
    """Patches, projections, both products of attention, the two layers after it, the head."""
    tokens, dim = 16, 24
    network = build("vit", classes=5, size=16, depth=2, dim=dim, heads=3)
    block = tokens * dim * dim * (3 + 1 + 4 + 4) + 2 * tokens * tokens * dim
    assert flops(network, (3, 16, 16)) == 2 * (tokens * 48 * dim + 2 * block + dim * 5)


def test_counting_leaves_the_network_as_it_was() -> None:
    """Mode and running statistics are untouched, also when the image does not fit."""
    network = build("plain", classes=5, width=4).train()
    network.head.eval()
    before = {name: x.clone() for name, x in network.state_dict().items()}
    flops(network, (3, 8, 8))
    with pytest.raises(RuntimeError):
        flops(network, (4, 8, 8))
    assert network.training
    assert not network.head.training
    assert all(torch.equal(x, before[name]) for name, x in network.state_dict().items())


def test_parameters_are_counted() -> None:
    """Weights and biases."""
    assert parameters(nn.Linear(3, 2)) == 8


@pytest.mark.parametrize(
    ("architecture", "arguments", "reason"),
    [
        ("resnet", {"depth": 19}, "depth 19"),
        ("preact", {"depth": 2}, "depth 2"),
        ("wide", {"depth": 28 - 1}, "depth 27"),
        ("vit", {"size": 30}, "patches of 4"),
        ("vit", {"heads": 5}, "heads 5"),
    ],
)
def test_impossible_shapes_are_refused(
    architecture: str, arguments: dict[str, Any], reason: str
) -> None:
    """A depth or a patch that cannot be is named."""
    with pytest.raises(ValueError, match=reason):
        build(architecture, classes=2, **arguments)


def test_a_transformer_refuses_other_sizes() -> None:
    """Its positions were learned for one size."""
    network = build("vit", classes=2, size=16, depth=1, dim=8, heads=2)
    with pytest.raises(ValueError, match="16 x 16"):
        network(torch.rand(1, 3, 20, 20))
