"""What every architecture promises; one row each."""

import json
from typing import Any

import pytest
import torch
from torch import nn

from guard.networks import ARCHITECTURES, Network, blueprint, build, fuse

# Name of the row: architecture, arguments, (C, H, W), batch norms that no convolution precedes.
ROWS: dict[str, tuple[str, dict[str, Any], tuple[int, int, int], int]] = {
    "plain": ("plain", {"width": 4, "normalize": "standard"}, (3, 16, 16), 0),
    "residual": ("residual", {"width": 4, "activation": "gelu", "grid": 2}, (3, 16, 16), 0),
    "broad": ("broad", {"width": 4, "channels": 1, "dropout": 0.5}, (1, 28, 28), 0),
    "resnet-8": ("resnet", {"depth": 8, "width": 4}, (3, 16, 16), 0),
    "resnet-18": ("resnet", {"depth": 18, "width": 4, "dropout": 0.1}, (3, 16, 16), 0),
    "resnet-8 group": ("resnet", {"depth": 8, "width": 4, "norm": "group"}, (3, 16, 16), 0),
    "preact-8": ("preact", {"depth": 8, "width": 4, "activation": "silu"}, (3, 16, 16), 4),
    "preact-18": ("preact", {"width": 4, "normalize": "contrast"}, (3, 16, 16), 9),
    "preact-8 group": ("preact", {"depth": 8, "width": 4, "norm": "group"}, (3, 16, 16), 0),
    "wide": ("wide", {"depth": 10, "widen": 2, "width": 4, "activation": "leaky"}, (3, 16, 16), 3),
    "wide group": ("wide", {"depth": 10, "widen": 1, "norm": "group"}, (3, 16, 16), 0),
    "vit": ("vit", {"size": [16, 24], "depth": 2, "dim": 24, "heads": 3}, (3, 16, 24), 0),
    "torchvision": ("torchvision", {"model": "shufflenet_v2_x0_5"}, (3, 64, 64), 0),
}
CLASSES = 5


@pytest.fixture(params=sorted(ROWS))
def row(request: pytest.FixtureRequest) -> str:
    """Every row in turn."""
    return str(request.param)


def make(row: str) -> tuple[Network, torch.Tensor]:
    """The row's network with lively running statistics, in eval mode, and images for it."""
    torch.manual_seed(0)
    architecture, arguments, shape, _ = ROWS[row]
    network = build(architecture, classes=CLASSES, **arguments)
    images = torch.rand(6, *shape)
    network.train()
    with torch.no_grad():
        network(images)
    return network.eval(), images


def test_every_architecture_has_a_row() -> None:
    """No architecture is left out of these tests."""
    assert {architecture for architecture, *_ in ROWS.values()} == set(ARCHITECTURES)


def test_the_head_answers_on_the_features(row: str) -> None:
    """Logits (N, K) are the head's answer to the features (N, F), for one image as for many."""
    network, images = make(row)
    features, logits = network.penultimate(images), network(images)
    assert features.shape == (6, network.head.in_features)
    assert logits.shape == (6, CLASSES)
    assert torch.equal(network.head(features), logits)
    assert torch.allclose(network(images[:1]), logits[:1], atol=1e-5)


def test_fusing_changes_no_answer(row: str) -> None:
    """Folded twice or once, the logits are the same to 1e-5; only norms after a sum are left."""
    network, images = make(row)
    before = network(images)
    assert torch.allclose(fuse(fuse(network))(images), before, atol=1e-5)
    left = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(left) == ROWS[row][3]


def test_reduced_precision_and_layout_stay_finite(row: str) -> None:
    """bf16 autocast and channels_last give finite logits and pixel gradients, near float32's."""
    network, images = make(row)
    exact = network(images).detach()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = images.contiguous(memory_format=torch.channels_last).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(images).float()
    (gradient,) = torch.autograd.grad(logits.logsumexp(1).sum(), images)
    assert torch.isfinite(gradient).all()
    assert (logits - exact).abs().max() < 0.1 * max(1.0, float(exact.abs().max()))


@pytest.mark.parametrize("row", ["plain", "resnet-8 group", "preact-8", "vit"])
def test_one_graph_for_the_compiler(row: str) -> None:
    """No branch depends on a tensor's values: the whole network is one graph."""
    torch.compiler.reset()  # the limit on recompilations counts every network's `forward`
    network, images = make(row)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(images), network(images), atol=1e-5)


def test_arguments_survive_json(row: str) -> None:
    """What a manifest holds builds a network of the same state."""
    architecture, arguments, _, _ = ROWS[row]
    written = json.loads(json.dumps(arguments))
    first, second = (build(architecture, classes=CLASSES, **x) for x in (arguments, written))
    shapes = [{name: x.shape for name, x in net.state_dict().items()} for net in (first, second)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("row", [row for row in ROWS if "group" in row])
def test_group_norm_knows_no_neighbours(row: str) -> None:
    """While training too, an image's logits depend on that image alone."""
    network, images = make(row)
    network.train()
    assert torch.allclose(network(images)[:2], network(images[:2]), atol=1e-5)
    assert not [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]


def test_a_blueprint_names_no_file() -> None:
    """A manifest's arguments say nothing about the checkpoint that training started from."""
    arguments = {"model": "resnet18", "classes": 5, "weights": "some/where.pth"}
    assert blueprint(arguments) == {"model": "resnet18", "classes": 5}


def test_a_norm_that_others_see_is_not_folded() -> None:
    """A convolution whose output is used twice keeps its norm, as does one that is called twice."""

    class Peeking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
            self.twice, self.after = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen = self.conv(images)
            out: torch.Tensor = self.norm(seen) + seen
            return self.twice(self.after(self.twice(out)))  # type: ignore[no-any-return]

    network, images = Peeking(), torch.rand(4, 3, 4, 4)
    network(images)
    before = network.eval()(images)
    assert torch.equal(fuse(network)(images), before)
    assert isinstance(network.norm, nn.BatchNorm2d)
    assert isinstance(network.after, nn.BatchNorm2d)


def test_a_path_that_depends_on_values_is_left_alone() -> None:
    """What cannot be traced is not folded, and answers as before."""

    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.norm(self.conv(images))
            return out if out.sum() > 0 else -out

    network = fuse(Branching())
    assert not network.training
    assert isinstance(network.norm, nn.BatchNorm2d)
