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
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from guard.errors import ConfigError, GuardError


@dataclass(frozen=True)
class Team:
    """This process among those that train together."""

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """The one process that writes files and speaks."""
        return self.rank == 0

    def divide(self, batch: int) -> int:
        """Rows of a batch for each process; ConfigError when they do not divide."""
        if batch % self.world:
            raise ConfigError(
                f"a batch of {batch} does not divide by {self.world} processes", key="batch"
            )
        return batch // self.world

    def rows(self, index: Tensor) -> Tensor:
        """This process's part of a batch's rows; ConfigError when they do not divide."""
        size = self.divide(len(index))
        return index[self.rank * size : (self.rank + 1) * size]

    def neighbours(self, rows: Tensor) -> Tensor:
        """Each row's predecessor in the whole batch; the first one's is the last."""
        rolled = rows.roll(1, 0)
        if self.world > 1:
            last = rolled[:1].clone(memory_format=torch.contiguous_format)
            lasts = [torch.empty_like(last) for _ in range(self.world)]
            dist.all_gather(lasts, last)
            rolled[:1] = lasts[self.rank - 1]
        return rolled

    def share(self, value: Tensor) -> Tensor:
        """The lead's value, on every process."""
        if self.world > 1:
            dist.broadcast(value, 0)
        return value

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
    def lead_first(self) -> Iterator[None]:
        """What the lead does alone before the others do it too."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()


@contextmanager
def team(device: torch.device) -> Iterator[Team]:
    """The team that `torchrun` started, or a team of one.

    A wrong setting is wrong everywhere: the lead says so and the others leave in silence. When a
    process is lost the others end with a GuardError, and `torchrun --max-restarts` starts anew.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Team()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    rank = int(os.environ["RANK"])
    try:
        _join("nccl" if device.type == "cuda" else "gloo")
        yield Team(rank, world)
    except ConfigError:
        if rank:
            raise SystemExit(2) from None
        raise
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
            raise
        raise GuardError(f"process {rank} lost the others: start again to resume") from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _join(backend: str) -> None:
    """Meet the others, by addresses of this start alone.

    After a restart torchrun's store still holds those of the processes that are gone.
    """
    store, rank, world = next(rendezvous("env://"))
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    fresh = PrefixStore(f"start-{start}", store)
    dist.init_process_group(backend, store=fresh, rank=rank, world_size=world)


def local_device(name: str = "auto") -> torch.device:
    """The device of this process: its own GPU where there are some, else the CPU."""
    if name != "auto":
        return torch.device(name)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
