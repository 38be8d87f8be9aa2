"""What can go wrong with a training that is nobody's bug, each in one clear line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from guard.errors import InputError, OverloadedError
from guard.training import checkpoint
from guard.training.pictures import Pictures
from guard.training.recipe import Recipe


def fit_together(pictures: Pictures, holdout: Pictures, classes: int) -> None:
    """InputError unless there are pictures, and their labels are the network's classes."""
    if not len(pictures) or not len(holdout):
        raise InputError(f"there is nothing to {'watch' if len(pictures) else 'train'} on")
    for part in (pictures, holdout):
        least, most = int(part.labels.min()), int(part.labels.max())
        if most >= classes or least < 0:
            raise InputError(
                f"the pictures have labels from {least} to {most} and the network {classes} classes"
            )


def fits(network: nn.Module, pictures: Pictures) -> None:
    """InputError unless the network takes such pictures."""
    try:
        with torch.no_grad():
            network(
                pictures.pixels(torch.zeros(1, dtype=torch.long, device=pictures.labels.device))
            )
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError) as error:
        shape = tuple(pictures.images.shape[1:])
        reason = str(error).splitlines()[0]
        raise InputError(f"the network does not take pictures of {shape}: {reason}") from error


def kept(folder: Path | None) -> str:
    """What an error message may add about the run's folder."""
    held = folder is not None and (folder / checkpoint.STATE).exists()
    return " (the last checkpoint is kept)" if held else ""


@contextmanager
def in_one_line(recipe: Recipe, folder: Path | None) -> Iterator[None]:
    """An error of the machine in one line, where a user can do something about it."""
    try:
        yield
    except OSError as error:
        if folder is None:
            raise
        raise InputError(f"{folder} cannot be written: {error.strerror or error}") from error
    except (RuntimeError, MemoryError) as error:
        text = str(error).lower()
        full = isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in text
        if not full:
            raise
        raise OverloadedError(
            f"out of memory at batch {recipe.batch}: lower it{kept(folder)}"
        ) from error
