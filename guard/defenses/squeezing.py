"""Feature squeezing: does the prediction survive a coarser picture?

Xu, Evans, Qi: "Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks",
NDSS 2018. The score is the largest L1 distance between the probabilities on a squeezed image and
on the original.

Known limit: an attacker who knows the squeezers optimises through them (He et al. 2017: joint
squeezing broken at little extra distortion). On adversarially trained members it is nearly blind,
on standard ones it sees small perturbations (2 to 4/255) and loses large ones.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from guard.defenses import Answers, straight_through
from guard.defenses.dct import Quantizer
from guard.defenses.median import median2, median3
from guard.defenses.nonlocal_means import nonlocal_means


def reduce_bits(images: Tensor, *, bits: int) -> Tensor:
    """Pixels in [0, 1] rounded to 2**bits levels; the gradient is that of the identity."""
    levels = float(2**bits - 1)
    return straight_through(torch.round(images * levels) / levels, images)


class Apply(nn.Module):
    """A squeezer without constants of its own: one function of the images."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return self.function(images)


SQUEEZERS: dict[str, Callable[..., nn.Module]] = {
    "bits": lambda *, bits=5: Apply(partial(reduce_bits, bits=bits)),
    "median2": lambda: Apply(median2),
    "median3": lambda: Apply(median3),
    "dct": lambda *, quality=75, color=False: Quantizer(quality, color=color),
    "nonlocal": lambda *, search=5, patch=3, strength=0.03: Apply(
        partial(nonlocal_means, search=search, patch=patch, strength=strength)
    ),
}
DEFAULT: tuple[dict[str, Any], ...] = (
    {"name": "bits", "bits": 5},
    {"name": "median2"},
    {"name": "median3"},
    {"name": "dct", "quality": 75},
)


class Squeezing(nn.Module):
    """One view and one column `squeeze_<name>` per squeezer: the L1 distance, in [0, 2].

    `squeezers` are dictionaries of a name in SQUEEZERS and its options.
    """

    name: ClassVar[str] = "squeezing"

    def __init__(
        self, squeezers: Sequence[dict[str, Any]] = DEFAULT, *, ask: str = "sentinel"
    ) -> None:
        super().__init__()
        self.ask = ask
        self.squeezers = [dict(squeezer) for squeezer in squeezers]
        self.steps = nn.ModuleList(_build(**squeezer) for squeezer in self.squeezers)

    @property
    def columns(self) -> tuple[str, ...]:
        """`squeeze_bits`, `squeeze_median2`, ..."""
        return tuple(f"squeeze_{squeezer['name']}" for squeezer in self.squeezers)

    def variants(self, copies: int) -> tuple[str, ...]:  # noqa: ARG002
        """One view per squeezer, named like its column."""
        return self.columns

    def views(self, images: Tensor, noise: Tensor) -> Tensor:  # noqa: ARG002
        """The squeezed images, (V, N, C, H, W)."""
        return torch.stack([step(images) for step in self.steps])

    def measure(self, answers: Answers) -> Tensor:
        """L1 distances (N, V)."""
        return (answers.views - answers.original).abs().sum(-1).transpose(0, 1)

    def score(self, evidence: Tensor) -> Tensor:
        """The largest distance."""
        return evidence.amax(-1)

    def spec(self) -> dict[str, Any]:
        """Name, asked member, squeezers with their options."""
        return {"name": self.name, "ask": self.ask, "squeezers": self.squeezers}


def _build(name: str, **options: Any) -> nn.Module:
    if name not in SQUEEZERS:
        raise ValueError(f"no squeezer {name!r}; there are {', '.join(SQUEEZERS)}")
    return SQUEEZERS[name](**options)
