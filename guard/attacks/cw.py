"""Carlini & Wagner's L2 attack: the smallest change that fools, by optimisation.

Carlini & Wagner, "Towards Evaluating the Robustness of Neural Networks", IEEE S&P 2017.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from guard.attacks.ball import lengths
from guard.attacks.craft import crafts
from guard.attacks.goal import Classifier, Goal

NORM = "l2"
_EDGE = 0.999999  # keeps atanh finite at black and white


@crafts
def cw(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int = 200,
    searches: int = 5,
    rate: float = 0.01,
    initial_weight: float = 1e-2,
    confidence: float = 0.0,
    targets: Tensor | None = None,
    generator: torch.Generator | None = None,  # noqa: ARG001 - nothing is drawn
) -> Tensor:
    """Minimise |change|^2 + weight * max(confidence - margin, 0) (Carlini & Wagner 2017).

    images (N, C, H, W), labels (N,); searches: how often the weight is bisected, per image;
    steps: Adam steps of `rate` each time (an image stops early when a tenth of them brought
    nothing); confidence: by how much the wrong logit must lead; targets (N,): wanted classes,
    None for any wrong one. Images that never fool the model come back unchanged. Deterministic.
    """
    goal = Goal(labels, targets, "margin")
    shape = (len(images), 1, 1, 1)
    low, high = images.new_zeros(shape), images.new_full(shape, torch.inf)
    weight = images.new_full(shape, initial_weight)
    best, shortest = images.clone(), images.new_full(shape, torch.inf)
    for _ in range(searches):
        found, length = _minimise(
            model, images, goal, weight, steps=steps, rate=rate, confidence=confidence
        )
        won = length < torch.inf
        better = length < shortest
        best, shortest = torch.where(better, found, best), torch.minimum(length, shortest)
        low, high = torch.where(won, low, weight), torch.where(won, weight, high)
        weight = torch.where(high < torch.inf, (low + high) / 2, weight * 10)
    return best


@dataclass
class _Adam:
    """Adam (Kingma & Ba 2015) whose images can leave one by one."""

    first: Tensor
    second: Tensor
    time: int = 0

    def step(self, gradient: Tensor, rate: float) -> Tensor:
        self.time += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        mean = self.first / (1 - 0.9**self.time)
        spread = (self.second / (1 - 0.999**self.time)).sqrt()
        return rate * mean / (spread + 1e-8)

    def keep(self, index: Tensor) -> None:
        self.first, self.second = self.first[index], self.second[index]


def _minimise(
    model: Classifier,
    images: Tensor,
    goal: Goal,
    weight: Tensor,
    *,
    steps: int,
    rate: float,
    confidence: float,
) -> tuple[Tensor, Tensor]:
    """With one weight (N, 1, 1, 1) per image: the best examples and their lengths (inf: none)."""
    space = torch.atanh((2 * images - 1) * _EDGE)
    out, shortest = images.clone(), torch.full_like(weight, torch.inf)
    adam = _Adam(torch.zeros_like(space), torch.zeros_like(space))
    active = torch.arange(len(images), device=images.device)
    lowest = torch.full_like(weight, torch.inf)
    for k in range(steps):
        points, margin, cost, gradient = _objective(
            model, space, images[active], goal[active], weight[active], confidence
        )
        change = lengths(points - images[active])
        won = ((margin > max(confidence, 0.0)) & (change < shortest[active]).flatten()).nonzero()[
            :, 0
        ]
        out[active[won]], shortest[active[won]] = points[won], change[won]
        space = space - adam.step(gradient, rate)
        if (k + 1) % max(1, steps // 10) == 0:
            going = (cost < 0.9999 * lowest[active]).flatten().nonzero()[:, 0]
            lowest[active] = torch.minimum(cost, lowest[active])
            active, space = active[going], space[going]
            adam.keep(going)
            if not len(active):
                break
    return out, shortest


def _objective(
    model: Classifier,
    space: Tensor,
    images: Tensor,
    goal: Goal,
    weight: Tensor,
    confidence: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixels, margin (N,), cost (N, 1, 1, 1) and its gradient, at points of tanh space."""
    space = space.detach().requires_grad_(True)
    with torch.enable_grad():
        points = (torch.tanh(space) + 1) / 2
        margin = goal.margin(model(points))
        short = (confidence - margin).clamp_min(0)[:, None, None, None]
        size = (points - images).square().flatten(1).sum(1)[:, None, None, None]
        cost = size + weight * short
        (gradient,) = torch.autograd.grad(cost.sum(), space)
    return points.detach(), margin.detach(), cost.detach(), gradient
