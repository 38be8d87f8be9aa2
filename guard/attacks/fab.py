"""FAB: along the class boundary, drawn back to the image.

Croce & Hein, "Minimally distorted Adversarial Examples with a Fast Adaptive Boundary Attack",
ICML 2020. Each step projects both the current point and the image onto the linearised boundary
(within [0, 1]), goes a little past it, and mixes the two; a point that fools is pulled back.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from guard.attacks.ball import Ball, draw, sizes
from guard.attacks.boundary import crossing, linearise, nearest, rivals
from guard.attacks.craft import crafts
from guard.attacks.goal import Classifier

NORM = "linf"
_RADIUS = {"linf": 0.3, "l2": 1.0}  # of random starts where no budget is given
_ALPHA_MAX, _ETA, _BETA = 0.1, 1.05, 0.9  # the paper's bias, overshoot and backward step


@crafts
def fab(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float | None = None,
    steps: int = 100,
    norm: Ball = "linf",
    restarts: int = 1,
    candidates: int = 9,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A smallest change in L-inf or L2 that fools the model (Croce & Hein 2020).

    images (N, C, H, W), labels (N,); eps: with a budget, an image leaves the batch at its first
    example within, and one for which there is none comes back unchanged; candidates: how many of
    the likeliest wrong classes are looked at in each step (each costs a backward pass). Images
    that are misclassified already come back unchanged.
    """
    wrong = rivals(model(images), labels, candidates)
    walk = _Walk(model, norm, eps, steps, generator)
    return walk.all(images, labels, [(wrong, k > 0) for k in range(restarts)])


@crafts
def fab_t(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float | None = None,
    steps: int = 100,
    norm: Ball = "linf",
    restarts: int = 1,
    classes: int = 9,
    generator: torch.Generator | None = None,
) -> Tensor:
    """FAB towards each of the likeliest wrong classes in turn: one backward pass per step.

    images (N, C, H, W), labels (N,); classes: how many wrong classes, fewer where there are fewer.
    The rest is as for `fab`.
    """
    wrong = rivals(model(images), labels, classes).unbind(1)
    walk = _Walk(model, norm, eps, steps, generator)
    runs = [(one[:, None], k > 0) for one in wrong for k in range(restarts)]
    return walk.all(images, labels, runs)


@dataclass(frozen=True)
class _Walk:
    """What does not change on the way."""

    model: Classifier
    norm: Ball
    eps: float | None
    steps: int
    generator: torch.Generator | None

    def all(self, images: Tensor, labels: Tensor, runs: list[tuple[Tensor, bool]]) -> Tensor:
        """Several runs, each with its rivals (N, R) and whether it starts at random."""
        out, size = images.clone(), images.new_full((len(images), 1, 1, 1), torch.inf)
        standing = (self.model(images).argmax(1) == labels).nonzero()[:, 0]
        for wrong, scattered in runs:
            if not len(standing):
                break
            origin, least = images[standing], size[standing]
            start = self._start(origin, least) if scattered else origin
            found, shorter = self.walk(origin, start, labels[standing], wrong[standing])
            better = shorter < least
            out[standing] = torch.where(better, found, out[standing])
            size[standing] = torch.minimum(shorter, least)
            if self.eps is not None:
                standing = standing[(size[standing] > self.eps).flatten()]
        return out if self.eps is None else torch.where(size <= self.eps, out, images)

    def walk(
        self, images: Tensor, start: Tensor, labels: Tensor, wrong: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One run: the nearest examples and their sizes (N, 1, 1, 1), inf where there is none."""
        out, size = images.clone(), images.new_full((len(images), 1, 1, 1), torch.inf)
        active, moved = torch.arange(len(images), device=images.device), start
        for _ in range(self.steps):
            gaps, slopes, _ = linearise(self.model, moved, labels, wrong)
            moved = self._step(images, moved, *nearest(gaps, slopes, norm=self.norm))
            fooled = (self.model(moved).argmax(1) != labels)[:, None, None, None]
            change = sizes(moved - images, norm=self.norm)
            better = fooled & (change < size[active])
            out[active] = torch.where(better, moved, out[active])
            size[active] = torch.where(better, change, size[active])
            moved = torch.where(fooled, images + _BETA * (moved - images), moved)
            going = self._going(size[active])
            if going is not None:
                active, moved, images = active[going], moved[going], images[going]
                labels, wrong = labels[going], wrong[going]
                if not len(active):
                    break
        return out, size

    def _step(self, images: Tensor, moved: Tensor, gap: Tensor, slope: Tensor) -> Tensor:
        """Past the linear boundary, from where we are and from the image; a mix of both."""
        back = gap + (slope * (images - moved)).sum((1, 2, 3))
        here = crossing(gap, slope, moved, norm=self.norm)
        there = crossing(back, slope, images, norm=self.norm)
        near = sizes(here, norm=self.norm).clamp_min(1e-8)
        far = sizes(there, norm=self.norm).clamp_min(1e-8)
        bias = (near / (near + far)).clamp(0, _ALPHA_MAX)
        mixed = (1 - bias) * (moved + _ETA * here) + bias * (images + _ETA * there)
        return mixed.clamp(0, 1)

    def _going(self, size: Tensor) -> Tensor | None:
        """Which images go on, None for all: those without an example inside the budget."""
        if self.eps is None or not bool((size <= self.eps).any()):
            return None
        return (size > self.eps).flatten().nonzero()[:, 0]

    def _start(self, images: Tensor, size: Tensor) -> Tensor:
        """Somewhere within half of what was found, or of the budget if that is less."""
        radius = size.clamp_max(_RADIUS[self.norm] if self.eps is None else self.eps) / 2
        unit = draw(torch.full_like(images, 0.5), eps=0.5, norm=self.norm, generator=self.generator)
        return (images + radius * (unit - 0.5) * 2).clamp(0, 1)
