"""The frame that all classifiers share: pixels in, normalisation, features, the last layer."""

from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import Tensor, nn

from guard.networks.layers import Normalize, Standardize


class Frame(TypedDict, total=False):
    """What every architecture but the builder's own options passes on to its frame."""

    normalize: str  # "contrast": of each image; "standard": with a fixed mean and deviation
    mean: float | Sequence[float]
    std: float | Sequence[float]
    dropout: float  # before the last layer
    grid: int  # cells, each way, that the features are averaged over


STANDARD: Frame = {"normalize": "standard"}


def first_layer(
    normalize: str, mean: float | Sequence[float] = 0.5, std: float | Sequence[float] = 0.25
) -> nn.Module:
    """The layer that takes pixels in [0, 1]; raises ValueError for an unknown name."""
    if normalize == "standard":
        return Standardize(mean, std)
    if normalize != "contrast":
        raise ValueError(f'normalize is "contrast" or "standard", not {normalize!r}')
    return Normalize()


class Network(nn.Module):
    """Normalise, extract features, pool, classify."""

    def __init__(
        self,
        features: nn.Module,
        width: int,
        classes: int,
        *,
        normalize: str = "contrast",
        mean: float | Sequence[float] = 0.5,
        std: float | Sequence[float] = 0.25,
        dropout: float = 0.0,
        grid: int = 1,
    ) -> None:
        super().__init__()
        self.normalize = first_layer(normalize, mean, std)
        self.features = features
        self.pool: nn.Module = nn.AdaptiveAvgPool2d(grid)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.head = nn.Linear(width * grid * grid, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Pixels (N, C, H, W) in [0, 1] to logits (N, K)."""
        logits: Tensor = self.head(self.dropout(self.penultimate(images)))
        return logits

    def penultimate(self, images: Tensor) -> Tensor:
        """Features before dropout and the last layer, (N, F)."""
        return torch.flatten(self.pool(self.features(self.normalize(images))), 1)
