"""Wide residual networks for small pictures (Zagoruyko and Komodakis 2016)."""

import math
from typing import Unpack

from torch import nn

from guard.networks.network import STANDARD, Frame, Network
from guard.networks.preact import pre_activated


def wide(
    *,
    classes: int,
    channels: int = 3,
    depth: int = 28,
    widen: int = 10,
    width: int = 16,
    activation: str = "relu",
    norm: str = "batch",
    **frame: Unpack[Frame],
) -> Network:
    """WRN-`depth`-`widen`: a stem of `width` channels, three stages of `widen` times that.

    WRN-28-10 has 36.5 M parameters, WRN-16-2 0.7 M. Raises ValueError unless depth is 6n + 4.
    """
    if depth < 10 or depth % 6 != 4:
        raise ValueError(f"depth {depth} is not 6n + 4 (10, 16, 22, 28, 34, ...)")
    widths = [width * widen * 2**stage for stage in range(3)]
    layers = pre_activated(
        channels, width, widths, (depth // 6,) * 3, activation=activation, norm=norm
    )
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d):  # as in the published code
            nn.init.normal_(layer.weight, std=math.sqrt(2 / layer.weight[:, 0].numel()))
    return Network(layers, widths[-1], classes, **(STANDARD | frame))
