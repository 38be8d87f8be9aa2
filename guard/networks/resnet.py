"""ResNet for small pictures (He et al. 2016): a 3x3 stem and no pooling before the head."""

from collections.abc import Sequence
from typing import Unpack

from torch import nn

from guard.networks.layers import ConvNorm, PreActivation, Residual
from guard.networks.network import STANDARD, Frame, Network

FOUR_STAGES = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def stages(depth: int) -> tuple[int, ...]:
    """Basic blocks in each stage: ResNet-10, 18 and 34, or three equal stages (6n + 2 layers).

    Raises ValueError for any other depth.
    """
    if depth in FOUR_STAGES:
        return FOUR_STAGES[depth]
    if depth < 8 or depth % 6 != 2:
        raise ValueError(f"depth {depth} is not 10, 18, 34 or 6n + 2 (8, 14, 20, 26, 32, ...)")
    return (depth // 6,) * 3


def blocks(
    kind: type[Residual | PreActivation],
    inputs: int,
    widths: Sequence[int],
    counts: Sequence[int],
    *,
    activation: str,
    norm: str,
) -> list[nn.Module]:
    """Stages of blocks; each but the first halves the resolution."""
    layers: list[nn.Module] = []
    for stage, (width, count) in enumerate(zip(widths, counts, strict=True)):
        for block in range(count):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(kind(inputs, width, stride=stride, activation=activation, norm=norm))
            inputs = width
    return layers


def resnet(
    *,
    classes: int,
    channels: int = 3,
    depth: int = 18,
    width: int | None = None,
    activation: str = "relu",
    norm: str = "batch",
    **frame: Unpack[Frame],
) -> Network:
    """ResNet-18 (11.2 M parameters), ResNet-20 (0.27 M), ResNet-32 (0.47 M), and so on.

    `width` is the first stage's, 64 for four stages and 16 for three unless given; each stage
    doubles it.
    """
    counts = stages(depth)
    w = width or (64 if len(counts) == 4 else 16)
    widths = [w * 2**stage for stage in range(len(counts))]
    stem = ConvNorm(channels, w, activation=activation, norm=norm)
    body = blocks(Residual, w, widths, counts, activation=activation, norm=norm)
    return Network(nn.Sequential(stem, *body), widths[-1], classes, **(STANDARD | frame))
