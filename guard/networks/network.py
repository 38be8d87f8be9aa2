"""The frame that all convolutional classifiers share."""

import torch
from torch import Tensor, nn

from guard.networks.layers import Normalize


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
