"""Several processes as one: `torchrun` starts them, each works on its rows of every batch.

Gradients are averaged by DistributedDataParallel; what bypasses it (weight perturbation, the
means that steer epsilon) is averaged here. One process needs none of it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from guard.errors import ConfigError


@dataclass(frozen=True)
class Team:
    """This process among those that train together."""

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """The one process that writes files and speaks."""
        return self.rank == 0

    def rows(self, index: Tensor) -> Tensor:
        """This process's part of a batch's rows; ConfigError when they do not divide."""
        if len(index) % self.world:
            raise ConfigError(
                f"a batch of {len(index)} does not divide by {self.world} processes", key="batch"
            )
        return index.chunk(self.world)[self.rank]

    def average(self, value: Tensor) -> None:
        """The mean over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(value)
            value /= self.world

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model whose backward pass averages gradients over all processes."""
        if self.world == 1:
            return model
        # Batch statistics stay each process's own in training; the lead's are broadcast.
        return DistributedDataParallel(model)

    def wait(self) -> None:
        """Until every process is here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def team(device: torch.device) -> Iterator[Team]:
    """The team that `torchrun` started, or a team of one."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Team()
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Team(dist.get_rank(), world)
    finally:
        dist.destroy_process_group()


def local_device(name: str = "auto") -> torch.device:
    """The device of this process: its own GPU where there are some, else the CPU."""
    if name != "auto":
        return torch.device(name)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
