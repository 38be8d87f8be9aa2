"""Every random number of a training run, drawn so that the number of processes does not matter.

With several processes each draws the numbers of the whole batch and keeps its own rows: two
ranks with half a batch each see what one process with the whole batch would have seen.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class Dice:
    """A seeded generator on one device; `rank` of `world` keeps its share of the rows."""

    def __init__(
        self, seed: int, *, device: torch.device | str = "cpu", rank: int = 0, world: int = 1
    ) -> None:
        self.generator = torch.Generator(device).manual_seed(seed)
        self.device, self.rank, self.world = torch.device(device), rank, world

    def uniform(self, count: int, *shape: int) -> Tensor:
        """(count, *shape) in [0, 1)."""
        whole = (count * self.world, *shape)
        return self._mine(torch.rand(whole, generator=self.generator, device=self.device), count)

    def normal(self, count: int, *shape: int) -> Tensor:
        """(count, *shape) standard normal."""
        whole = (count * self.world, *shape)
        return self._mine(torch.randn(whole, generator=self.generator, device=self.device), count)

    def shared(self, count: int) -> Tensor:
        """(count,) in [0, 1), the same on every rank: for what concerns the batch as a whole."""
        return torch.rand((count,), generator=self.generator, device=self.device)

    def spread(self, count: int, reach: float) -> Tensor:
        """(count,) uniform in [-reach, reach)."""
        return (self.uniform(count) * 2 - 1) * reach

    def pick(self, weights: Sequence[float]) -> int:
        """An index drawn with these weights: the same one on every rank."""
        chances = torch.tensor(weights, dtype=torch.float64).cumsum(0)
        point = torch.rand(1, generator=self.generator, device=self.device).item() * chances[-1]
        return min(int((chances <= point).sum()), len(weights) - 1)

    def _mine(self, whole: Tensor, count: int) -> Tensor:
        return whole[self.rank * count : (self.rank + 1) * count]
