"""PGD: many small steps, each projected back into the ball.

Madry, Makelov, Schmidt, Tsipras & Vladu, "Towards Deep Learning Models Resistant to Adversarial
Attacks", ICLR 2018; the margin loss is Carlini & Wagner's (2017).
"""

from __future__ import annotations

import torch
from torch import Tensor

from guard.attacks.ball import Ball, draw, project, steepest
from guard.attacks.goal import Classifier, Goal, Loss, slope

NORM = "linf"


def pgd(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: int = 20,
    step: float | None = None,
    norm: Ball = "linf",
    loss: Loss = "ce",
    targets: Tensor | None = None,
    restarts: int = 1,
    random_start: bool = True,
    early_stop: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Projected gradient ascent in the L-inf or L2 ball (Madry et al. 2018).

    images (N, C, H, W), labels (N,); eps: budget in `norm`; step: length of one step, by default
    2.5 eps / steps; targets (N,): wanted classes, None for any wrong one; restarts: fresh starts
    for images that still stand; early_stop: leave an image alone once it fools the model (weaker
    examples, sooner). An image that was fooled on the way but not at the end keeps its last
    fooling point.
    """
    goal, length = Goal(labels, targets, loss), 2.5 * eps / steps if step is None else step
    out = images.detach().clone()
    standing = torch.arange(len(images), device=images.device)
    for _ in range(restarts):
        if not len(standing):
            break
        origin, aim = images[standing].detach(), goal[standing]
        start = draw(origin, eps=eps, norm=norm, generator=generator) if random_start else origin
        found, fooled = _climb(
            model, origin, start, aim, eps=eps, steps=steps, step=length, norm=norm,
            early_stop=early_stop,
        )  # fmt: skip
        out[standing] = found
        standing = standing[~fooled]
    return out


def _climb(
    model: Classifier,
    images: Tensor,
    start: Tensor,
    goal: Goal,
    *,
    eps: float,
    steps: int,
    step: float,
    norm: Ball,
    early_stop: bool,
) -> tuple[Tensor, Tensor]:
    """One run from `start`: the points found and (N,) whether they fool the model."""
    moved, found = start, start.clone()
    fooled = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    active = torch.arange(len(images), device=images.device)
    for _ in range(steps):
        logits, gradient = slope(model, moved, goal[active])
        hit = goal[active].reached(logits)
        found[active[hit]], fooled[active[hit]] = moved[hit], True
        if early_stop:
            moved, gradient, active = moved[~hit], gradient[~hit], active[~hit]
            if not len(active):
                return found, fooled
        moved = moved + step * steepest(gradient, norm=norm)
        moved = project(moved, images[active], eps=eps, norm=norm)
    with torch.no_grad():
        hit = goal[active].reached(model(moved))
    last = hit | ~fooled[active]
    found[active[last]] = moved[last]
    fooled[active[hit]] = True
    return found, fooled
