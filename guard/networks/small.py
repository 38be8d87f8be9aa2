"""Six to eight layers, for small pictures: the members of packs that are trained on a CPU."""

from torch import nn

from guard.networks.layers import ConvNorm, Residual
from guard.networks.network import Network


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
