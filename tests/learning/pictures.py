"""Which pictures play which part: what callers send, and what is measured, have none in common."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from guard.attacks import round8
from guard.data import ImageSet
from guard.evaluation.corruptions import REPORTED
from guard.evaluation.detection import Attack, attack_production, strike
from guard.evaluation.holdout import CLEAN
from guard.training.parts import Parts

SENT, MEASURED = 1500, 2000  # clean pictures
KNOWN = 400  # attacked with what the detector was trained against
CORRUPTED = 500


@dataclass(frozen=True)
class Material:
    """Pictures of a pack's test split, in two halves that share no track."""

    sent: ImageSet
    held: ImageSet

    @classmethod
    def of(cls, parts: Parts) -> "Material":
        """The halves, each in a random order; no picture of the pack's hold-out is among them."""
        held_out = np.random.default_rng(0).permutation(len(parts.test))[:CLEAN]
        rest = np.setdiff1d(np.arange(len(parts.test)), held_out)
        first, second = parts.test.subset(rest).split_by_group(0.5, seed=11)
        return cls(_shuffled(first, 1), _shuffled(second, 2))

    def traffic(
        self, production: nn.Module, attack: Attack, count: int, round_: int = 0
    ) -> tuple[Tensor, Tensor]:
        """What callers send: attacks that work, and clean pictures; no picture is in both.

        Every other round, those attacked are others; then the same ones, attacked anew.
        """
        order = np.roll(np.arange(len(self.sent)), -round_ * count)
        attacked, clean = self.sent.subset(order[:count]), self.sent.subset(order[count:])
        return fooling(production, attack, attacked, seed=5 + 100 * round_), _pixels(clean)[:SENT]

    def measured(self, production: nn.Module, attack: Attack, count: int) -> Tensor:
        """Attacks that work, on pictures that were never sent."""
        return fooling(production, attack, self.held.subset(slice(count)), seed=6)

    def constants(self, production: nn.Module) -> dict[str, Tensor]:
        """What must not get worse: clean and corrupted pictures, and the attacks it knows."""
        clean = _pixels(self.held)[:MEASURED]
        found = {"clean": clean}
        for name, corruption in REPORTED.items():
            worse = corruption(clean[:CORRUPTED], torch.Generator().manual_seed(7))
            found[name] = round8(worse)
        labels = torch.from_numpy(self.held.labels[:KNOWN])
        known = strike(production, clean[:KNOWN], labels)
        return found | {name: won.images for name, won in known.items()}


def fooling(production: nn.Module, attack: Attack, images: ImageSet, *, seed: int) -> Tensor:
    """Attacks (R, C, H, W), rounded to 8 bits, that fool the production model."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.from_numpy(images.labels)
    return attack_production(production, attack, _pixels(images), labels, generator).images


def _pixels(images: ImageSet) -> Tensor:
    return torch.from_numpy(images.pixels())


def _shuffled(images: ImageSet, seed: int) -> ImageSet:
    return images.subset(np.random.default_rng(seed).permutation(len(images)))
