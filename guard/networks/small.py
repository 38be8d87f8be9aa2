"""Six to eight layers, for small pictures: the members of packs that are trained on a CPU."""

from typing import Unpack

from torch import nn

from guard.networks.layers import ConvNorm, Residual
from guard.networks.network import Frame, Network


def plain(
    *,
    classes: int,
    channels: int = 3,
    width: int = 24,
    activation: str = "relu",
    norm: str = "batch",
    **frame: Unpack[Frame],
) -> Network:
    """Six 3x3 convolutions in three stages, down-sampled by stride (VGG in spirit)."""
    w = width
    layers = [
        ConvNorm(channels, w, activation=activation, norm=norm),
        ConvNorm(w, w, activation=activation, norm=norm),
        ConvNorm(w, 2 * w, stride=2, activation=activation, norm=norm),
        ConvNorm(2 * w, 2 * w, activation=activation, norm=norm),
        ConvNorm(2 * w, 4 * w, stride=2, activation=activation, norm=norm),
        ConvNorm(4 * w, 4 * w, activation=activation, norm=norm),
    ]
    return Network(nn.Sequential(*layers), 4 * w, classes, **frame)


def residual(
    *,
    classes: int,
    channels: int = 3,
    width: int = 16,
    activation: str = "relu",
    norm: str = "batch",
    **frame: Unpack[Frame],
) -> Network:
    """ResNet-8: a stem and three basic blocks of doubling width."""
    w = width
    layers: list[nn.Module] = [
        ConvNorm(channels, w, activation=activation, norm=norm),
        Residual(w, w, stride=1, activation=activation, norm=norm),
        Residual(w, 2 * w, stride=2, activation=activation, norm=norm),
        Residual(2 * w, 4 * w, stride=2, activation=activation, norm=norm),
    ]
    return Network(nn.Sequential(*layers), 4 * w, classes, **frame)


def broad(
    *,
    classes: int,
    channels: int = 3,
    width: int = 24,
    activation: str = "relu",
    norm: str = "batch",
    **frame: Unpack[Frame],
) -> Network:
    """A 5x5 stem at half resolution, then four wide 3x3 layers: few, cheap, large filters."""
    w = width
    layers = [
        ConvNorm(channels, w, kernel=5, stride=2, activation=activation, norm=norm),
        ConvNorm(w, 2 * w, activation=activation, norm=norm),
        ConvNorm(2 * w, 2 * w, activation=activation, norm=norm),
        ConvNorm(2 * w, 4 * w, stride=2, activation=activation, norm=norm),
        ConvNorm(4 * w, 4 * w, activation=activation, norm=norm),
    ]
    return Network(nn.Sequential(*layers), 4 * w, classes, **frame)
