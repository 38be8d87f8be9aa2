"""A small vision transformer (Dosovitskiy et al. 2021) that averages its tokens."""

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from guard.networks.layers import ACTIVATIONS
from guard.networks.network import STANDARD, Frame, Network


class Attention(nn.Module):
    """Self-attention of several heads."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim {dim} is no multiple of heads {heads}")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T, dim) to (N, T, dim)."""
        split = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(split[0], split[1], split[2])
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """Attention and two linear layers, each after a layer norm and beside a skip."""

    def __init__(self, dim: int, heads: int, *, widen: int, activation: str) -> None:
        super().__init__()
        self.first = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.second = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, widen * dim), ACTIVATIONS[activation](), nn.Linear(widen * dim, dim)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T, dim) to (N, T, dim)."""
        tokens = tokens + self.attention(self.first(tokens))
        out: Tensor = tokens + self.mlp(self.second(tokens))
        return out


class Transformer(nn.Module):
    """Patches with learned positions, blocks, a last norm; the tokens are put back in a grid."""

    def __init__(
        self, channels: int, grid: tuple[int, int], patch: int, dim: int, blocks: Sequence[Block]
    ) -> None:
        super().__init__()
        self.grid = grid
        self.patches = nn.Conv2d(channels, dim, patch, patch)
        self.positions = nn.Parameter(torch.randn(1, grid[0] * grid[1], dim) * 0.02)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(dim)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, dim, H / patch, W / patch); raises ValueError for another size."""
        patches = self.patches(images)
        if patches.shape[2:] != self.grid:
            height, width = (n * self.patches.stride[0] for n in self.grid)
            raise ValueError(f"this transformer was built for images of {height} x {width}")
        tokens = self.blocks(patches.flatten(2).transpose(1, 2) + self.positions)
        out: Tensor = self.norm(tokens).transpose(1, 2).unflatten(2, self.grid)
        return out


def vit(
    *,
    classes: int,
    channels: int = 3,
    size: int | Sequence[int] = 32,
    patch: int = 4,
    depth: int = 6,
    dim: int = 192,
    heads: int = 3,
    widen: int = 4,
    activation: str = "gelu",
    **frame: Unpack[Frame],
) -> Network:
    """A vision transformer for images of `size` (H and W, or one number for both).

    2.7 M parameters as it stands. Raises ValueError when patches or heads do not fit.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if height % patch or width % patch:
        raise ValueError(f"images of {height} x {width} are no multiple of patches of {patch}")
    layers = [Block(dim, heads, widen=widen, activation=activation) for _ in range(depth)]
    features = Transformer(channels, (height // patch, width // patch), patch, dim, layers)
    for layer in features.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
    return Network(features, dim, classes, **(STANDARD | frame))
