"""The small classifiers that packs are made of: pixels in [0, 1] to logits.

Contrast normalisation is the first layer, so that epsilon means what papers mean. Batch
normalisation is used in training only: `fuse` folds it into the convolutions, and the fused
network is what is exported, served, attacked and rebuilt by `load_member`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=False),
    "silu": lambda: nn.SiLU(inplace=False),
    "leaky": lambda: nn.LeakyReLU(0.1, inplace=False),
}


class Normalize(nn.Module):
    """Every image to zero mean and about unit contrast, so that light and exposure matter less.

    The floor keeps flat images flat instead of amplifying their noise.
    """

    def __init__(self, floor: float = 0.05) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] to (N, C, H, W)."""
        centred = images - images.mean((1, 2, 3), keepdim=True)
        power = (centred * centred).mean((1, 2, 3), keepdim=True)
        return centred / torch.sqrt(power + self.floor**2)


class ConvNorm(nn.Module):
    """A convolution, batch normalisation while training, an activation."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, activation: str | None
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)
        self.activation = ACTIVATIONS[activation]() if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        out: Tensor = self.activation(self.norm(self.conv(x)))
        return out

    def fuse(self) -> None:
        """Fold the normalisation into the convolution, in place."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv.eval(), self.norm.eval())
            self.norm = nn.Identity()


class Residual(nn.Module):
    """A basic residual block (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, activation: str) -> None:
        super().__init__()
        self.first = ConvNorm(inputs, outputs, stride=stride, activation=activation)
        self.second = ConvNorm(outputs, outputs, activation=None)
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.skip = ConvNorm(inputs, outputs, kernel=1, stride=stride, activation=None)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        out: Tensor = self.activation(self.second(self.first(x)) + self.skip(x))
        return out


class Network(nn.Module):
    """Normalise, extract features, pool, classify."""

    def __init__(self, features: nn.Sequential, width: int, classes: int, *, grid: int = 1) -> None:
        super().__init__()
        self.normalize = Normalize()
        self.features = features
        self.pool: nn.Module = nn.AdaptiveAvgPool2d(grid)
        self.head = nn.Linear(width * grid * grid, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Pixels (N, C, H, W) in [0, 1] to logits (N, K)."""
        logits: Tensor = self.head(self.penultimate(images))
        return logits

    def penultimate(self, images: Tensor) -> Tensor:
        """Features before the last layer, (N, F)."""
        return torch.flatten(self.pool(self.features(self.normalize(images))), 1)


def plain(
    *, classes: int, channels: int = 3, width: int = 24, activation: str = "relu", grid: int = 1
) -> Network:
    """Six 3x3 convolutions in three stages, down-sampled by stride (VGG in spirit)."""
    w = width
    layers = [
        ConvNorm(channels, w, activation=activation),
        ConvNorm(w, w, activation=activation),
        ConvNorm(w, 2 * w, stride=2, activation=activation),
        ConvNorm(2 * w, 2 * w, activation=activation),
        ConvNorm(2 * w, 4 * w, stride=2, activation=activation),
        ConvNorm(4 * w, 4 * w, activation=activation),
    ]
    return Network(nn.Sequential(*layers), 4 * w, classes, grid=grid)


def residual(
    *, classes: int, channels: int = 3, width: int = 16, activation: str = "relu", grid: int = 1
) -> Network:
    """ResNet-8: a stem and three basic blocks of doubling width."""
    w = width
    layers: list[nn.Module] = [
        ConvNorm(channels, w, activation=activation),
        Residual(w, w, stride=1, activation=activation),
        Residual(w, 2 * w, stride=2, activation=activation),
        Residual(2 * w, 4 * w, stride=2, activation=activation),
    ]
    return Network(nn.Sequential(*layers), 4 * w, classes, grid=grid)


def broad(
    *, classes: int, channels: int = 3, width: int = 24, activation: str = "relu", grid: int = 1
) -> Network:
    """A 5x5 stem at half resolution, then four wide 3x3 layers: few, cheap, large filters."""
    w = width
    layers = [
        ConvNorm(channels, w, kernel=5, stride=2, activation=activation),
        ConvNorm(w, 2 * w, activation=activation),
        ConvNorm(2 * w, 2 * w, activation=activation),
        ConvNorm(2 * w, 4 * w, stride=2, activation=activation),
        ConvNorm(4 * w, 4 * w, activation=activation),
    ]
    return Network(nn.Sequential(*layers), 4 * w, classes, grid=grid)


ARCHITECTURES: dict[str, Callable[..., Network]] = {
    "plain": plain,
    "residual": residual,
    "broad": broad,
}


def build(architecture: str, **arguments: Any) -> Network:
    """A fresh network by its name in the manifest; raises KeyError for an unknown name."""
    return ARCHITECTURES[architecture](**arguments)


def fuse(network: nn.Module) -> nn.Module:
    """Fold every batch normalisation into its convolution, in place; returns it in eval mode."""
    network.eval()
    for module in network.modules():
        if isinstance(module, ConvNorm):
            module.fuse()
    return network


def parameters(network: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(p.numel() for p in network.parameters())


@torch.no_grad()
def flops(network: nn.Module, shape: tuple[int, int, int]) -> int:
    """Floating-point operations of one forward pass on one image (C, H, W): two per product."""
    total = 0

    def count(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        weight = module.weight
        if isinstance(weight, Tensor):
            total += 2 * weight[0].numel() * output[0].numel()

    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    network(torch.zeros(1, *shape))
    for hook in hooks:
        hook.remove()
    return total
