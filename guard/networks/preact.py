"""Networks of pre-activation blocks: PreActResNet (He et al. 2016b), WideResNet."""

import math
from typing import Unpack

from torch import nn

from guard.networks.layers import ACTIVATIONS, NORMS, PreActivation
from guard.networks.network import Frame, Network
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
    """PreActResNet-18 (width 64) and its relatives; depths and widths as for `resnet`."""
    counts = stages(depth)
    w = width or (64 if len(counts) == 4 else 16)
    widths = [w * 2**stage for stage in range(len(counts))]
    return _network(channels, w, widths, counts, classes, activation, norm, frame)


def _network(
    channels: int,
    stem: int,
    widths: list[int],
    counts: tuple[int, ...],
    classes: int,
    activation: str,
    norm: str,
    frame: Frame,
) -> Network:
    layers = [
        nn.Conv2d(channels, stem, 3, 1, 1, bias=False),
        *blocks(PreActivation, stem, widths, counts, activation=activation, norm=norm),
        NORMS[norm](widths[-1]),
        ACTIVATIONS[activation](),
    ]
    return Network(
        nn.Sequential(*layers), widths[-1], classes, **{"normalize": "standard", **frame}
    )
