"""Pictures as tensors, on the machine that trains: eight bits until a batch is drawn."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Pictures:
    """Images (N, C, H, W) uint8 and labels (N,) int64 as tensors on one device."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, index: Tensor) -> Tensor:
        """float32 in [0, 1] of the chosen rows."""
        return self.images[index].float().div_(255.0)

    def to(self, device: torch.device | str) -> "Pictures":
        """The same pictures on `device`; a data set of eight bits fits on any GPU."""
        return Pictures(self.images.to(device), self.labels.to(device))

    def shuffled(self, seed: int) -> tuple[Tensor, Tensor]:
        """All pixels and labels in an order drawn from `seed`."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return self.pixels(order), self.labels[order]

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """`count` pixels and labels, spread evenly over the set, always the same ones."""
        chosen = torch.linspace(0, len(self) - 1, min(count, len(self)), device=self.labels.device)
        return self.pixels(chosen.long()), self.labels[chosen.long()]


@torch.no_grad()
def accuracy(network: nn.Module, pictures: Pictures, *, batch: int = 512) -> float:
    """Share of pictures classified right."""
    hits = 0
    rows = torch.arange(len(pictures), device=pictures.labels.device)
    for index in torch.split(rows, batch):
        hits += int((network(pictures.pixels(index)).argmax(1) == pictures.labels[index]).sum())
    return hits / max(len(pictures), 1)
