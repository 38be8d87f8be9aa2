"""The classifier that the demo guards: small, good on clean signs, trained as everybody does.

It shares nothing with the pack: neither pictures, seed, nor the sentinel's architecture.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import nn

from guard.data import ImageSet
from guard.networks import fuse
from guard.training.augment import Augment
from guard.training.classifier import train
from guard.training.export import export_classifier
from guard.training.parts import pictures
from guard.training.recipe import Recipe

HELD_OUT = 100  # pictures that the training log reports on
RECIPE = Recipe(
    "broad",
    16,
    activation="leaky",
    attacks={},
    batch=64,
    peak_rate=0.1,
    ema=0.95,
    augment=Augment(rotation=5.0, zoom=0.1, shift=0.1, light=0.3),
    bf16=False,
    seed=7919,
)


def train_production(
    images: ImageSet, *, epochs: int, seed: int, say: Callable[[str], None]
) -> nn.Module:
    """Train on clean pictures only, in some 20 seconds; returned in eval mode."""
    recipe = replace(RECIPE, epochs=epochs, seed=RECIPE.seed + seed)
    held, rest = images.subset(slice(HELD_OUT)), images.subset(slice(HELD_OUT, None))
    trained = train(
        recipe,
        pictures(rest),
        pictures(held),
        len(images.classes),
        log=lambda line: say(f"      {line}"),
    )
    return fuse(trained)


def export(network: nn.Module, path: Path, images: ImageSet) -> Path:
    """Write the ONNX file that is served: `images` (N, C, H, W) to `logits` (N, K)."""
    height, width, channels = images.images.shape[1:]
    export_classifier(network, path, shape=(channels, height, width))
    return path
