"""A small, easy task and a recipe for it: what the tests of training train on."""

from pathlib import Path

import torch

from guard.data import ImageSet
from guard.data.write import write_parquet
from guard.networks import Network
from guard.training.classifier import train
from guard.training.pictures import Pictures
from guard.training.recipe import Recipe

NATURAL = Recipe(
    "plain", 4, attacks={}, epochs=3, batch=16, peak_rate=0.1, ema=0.8, bf16=False, grid=2
)


def colours(count: int, seed: int, *, size: int = 8) -> Pictures:
    """Pictures whose strongest channel is their class; easy, and quick to learn."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=generator)
    images = torch.randint(0, 90, (count, 3, size, size), generator=generator)
    images[torch.arange(count), labels] += 120
    return Pictures(images.to(torch.uint8), labels)


def stored(root: Path, *, size: int = 8) -> Path:
    """The same as files: pictures to train on, and as many to test as leave enough to calibrate."""
    for seed, (split, count) in enumerate({"train": 480, "test": 320}.items()):
        pictures = colours(count, seed, size=size)
        images = pictures.images.permute(0, 2, 3, 1).numpy()
        named = ImageSet(images, pictures.labels.numpy(), ("red", "green", "blue"))
        write_parquet(root / f"{split}.parquet", named)
    return root


def taught(recipe: Recipe, *, count: int = 48) -> Network:
    """What this recipe learns of the task."""
    return train(recipe, colours(count, 0), colours(30, 1), 3)


def equal(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    """Whether two networks have the same numbers, bit for bit."""
    theirs = second.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in first.state_dict().items())
