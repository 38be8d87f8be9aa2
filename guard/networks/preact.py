"""PreActResNet for small pictures (He et al. 2016b): norm and activation before convolution."""

from collections.abc import Sequence
from typing import Unpack

from torch import nn

from guard.networks.layers import ACTIVATIONS, NORMS, PreActivation
from guard.networks.network import STANDARD, Frame, Network
from guard.networks.resnet import blocks, stages


def preact(
    *,
    classes: int,
    channels: int = 3,
    depth: int = 18,
    width: int | None = None,
    activation: str = "relu",
    norm: str = "batch",
    **frame: Unpack[Frame],
) -> Network:
    """PreActResNet-18 (11.2 M parameters) and its relatives; depths and widths as in `resnet`."""
    counts = stages(depth)
    w = width or (64 if len(counts) == 4 else 16)
    widths = [w * 2**stage for stage in range(len(counts))]
    layers = pre_activated(channels, w, widths, counts, activation=activation, norm=norm)
    return Network(layers, widths[-1], classes, **(STANDARD | frame))


def pre_activated(
    channels: int,
    stem: int,
    widths: Sequence[int],
    counts: Sequence[int],
    *,
    activation: str,
    norm: str,
) -> nn.Sequential:
    """A stem, stages of pre-activation blocks, and the norm and activation that they end with."""
    return nn.Sequential(
        nn.Conv2d(channels, stem, 3, 1, 1, bias=False),
        *blocks(PreActivation, stem, widths, counts, activation=activation, norm=norm),
        NORMS[norm](widths[-1]),
        ACTIVATIONS[activation](),
    )
