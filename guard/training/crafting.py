"""Adversarial examples for training: a few cheap steps on a whole batch, nothing looked up.

Unlike `guard.attacks`, nothing is kept of the way and nobody is let off: training wants the last
point of every picture. N-FGSM: de Jorge et al., NeurIPS 2022. The others as in `guard.attacks`;
"trades" raises the divergence from the clean answer (Zhang et al. 2019), "deepfool" takes steps
towards the nearest rival class as if the classifier were linear.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from guard.attacks.ball import Ball, lengths, project, steepest
from guard.training.dice import Dice
from guard.training.losses import cross_entropy, divergence, margin

Model = Callable[[Tensor], Tensor]
SINGLE_STEP = ("fgsm", "nfgsm")
NAMES = ("fgsm", "nfgsm", "bim", "pgd", "cw", "trades", "deepfool")


@dataclass(frozen=True)
class Craft:
    """How examples are made: `eps` in `norm`, `steps` of `stride` times eps, `spread` of N-FGSM."""

    eps: float
    norm: Ball = "linf"
    steps: int = 10
    stride: float = 0.25
    spread: float = 2.0

    def __call__(self, name: str, model: Model, images: Tensor, soft: Tensor, dice: Dice) -> Tensor:
        """Examples (N, C, H, W) by the attack of that name; soft (N, K) are class shares."""
        if name == "nfgsm":
            return self._nfgsm(model, images, soft, dice)
        if name == "fgsm":
            return self._climb(model, images, images, _entropy(soft), steps=1, stride=1.0)
        if name == "deepfool":
            return self._deepfool(model, images, soft)
        if name == "bim":
            return self._climb(model, images, images, _entropy(soft))
        start = self._start(images, dice)
        if name == "pgd":
            return self._climb(model, images, start, _entropy(soft))
        if name == "cw":
            return self._climb(model, images, start, lambda logits: margin(logits, soft))
        with torch.no_grad():
            clean = model(images)
        start = (images + 0.001 * dice.normal(*images.shape)).clamp(0, 1)
        return self._climb(model, images, start, lambda logits: divergence(logits, clean))

    def passes(self, name: str) -> int:
        """Forward and backward passes of one call (a lone forward pass counts as one)."""
        if name in SINGLE_STEP:
            return 1
        return self.steps + (name == "trades")

    def _start(self, images: Tensor, dice: Dice) -> Tensor:
        if self.norm == "linf":
            step = dice.uniform(*images.shape) * 2 - 1
        else:
            step = dice.normal(*images.shape)
            share = dice.uniform(len(images), 1, 1, 1) ** (1 / images[0].numel())
            step = step / lengths(step) * share
        return (images + self.eps * step).clamp(0, 1)

    def _climb(
        self,
        model: Model,
        images: Tensor,
        start: Tensor,
        rise: Callable[[Tensor], Tensor],
        *,
        steps: int | None = None,
        stride: float | None = None,
    ) -> Tensor:
        moved, length = start, (self.stride if stride is None else stride) * self.eps
        for _ in range(self.steps if steps is None else steps):
            direction = steepest(_slope(model, moved, rise), norm=self.norm)
            moved = project(moved + length * direction, images, eps=self.eps, norm=self.norm)
        return moved

    def _nfgsm(self, model: Model, images: Tensor, soft: Tensor, dice: Dice) -> Tensor:
        """Uniform noise of `spread` eps, one step of eps, not clipped back into the ball."""
        noise = (dice.uniform(*images.shape) * 2 - 1) * self.spread * self.eps
        start = images + noise
        gradient = _slope(model, start, _entropy(soft))
        return (start + self.eps * steepest(gradient, norm=self.norm)).clamp(0, 1)

    def _deepfool(self, model: Model, images: Tensor, soft: Tensor) -> Tensor:
        """Each step just crosses the linearised boundary to the best rival, inside the ball."""
        moved = images
        for _ in range(self.steps):
            moved = moved.detach().requires_grad_(True)
            gap = margin(model(moved), soft)
            (slope,) = torch.autograd.grad(gap.sum(), moved)
            size = (
                slope.flatten(1).abs().sum(1) if self.norm == "linf" else lengths(slope).flatten()
            )
            need = (1.02 * gap.detach().abs() + 1e-4) / size.clamp_min(1e-8)
            need = need * (gap.detach() < 0)  # who has crossed stays
            step = need[:, None, None, None] * steepest(slope, norm=self.norm)
            moved = project(moved.detach() + step, images, eps=self.eps, norm=self.norm)
        return moved


def chain(
    craft: Craft, names: list[str], model: Model, images: Tensor, soft: Tensor, dice: Dice
) -> Tensor:
    """Attacks one after the other, each from where the last one stopped, inside one ball."""
    moved = images
    for name in names:
        moved = craft(name, model, moved, soft, dice)
        if len(names) > 1:
            moved = project(moved, images, eps=craft.eps, norm=craft.norm)
    return moved


def _entropy(soft: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda logits: cross_entropy(logits, soft)


def _slope(model: Model, moved: Tensor, rise: Callable[[Tensor], Tensor]) -> Tensor:
    moved = moved.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(rise(model(moved)).sum(), moved)
    return gradient
