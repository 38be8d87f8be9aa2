"""The way up that iterative attacks share: a gradient, a step, a projection, again."""

from __future__ import annotations

import torch
from torch import Tensor

from guard.attacks.ball import Ball, ascend
from guard.attacks.goal import Classifier, Goal, slope


def climb(
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
    decay: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """One run from `start` (N, C, H, W): the points found and (N,) whether they fool the model.

    decay: how much of the gathered direction is kept (Dong et al. 2018), 0 for none. With
    `early_stop` an image leaves the batch at its first fooling point; without, an image that was
    fooled on the way but not at the end keeps its last fooling point.
    """
    moved, found = start.clone(), start.clone()
    fooled = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    active = torch.arange(len(images), device=images.device)
    speed = torch.zeros_like(moved) if decay else None
    for _ in range(steps):
        logits, gradient = slope(model, moved, goal)
        hit = goal.reached(logits)
        if early_stop and bool(hit.any()):
            found[active[hit]], fooled[active[hit]] = moved[hit], True
            keep = (~hit).nonzero()[:, 0]
            if not len(keep):
                return found, fooled
            moved, gradient, images = moved[keep], gradient[keep], images[keep]
            active, goal = active[keep], goal[keep]
            speed = None if speed is None else speed[keep]
        elif not early_stop:
            torch.where(hit[:, None, None, None], moved, found, out=found)
            fooled |= hit
        if speed is not None:
            gradient /= gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-12)
            gradient = speed.mul_(decay).add_(gradient).clone()
        moved = ascend(moved, gradient, images, step=step, eps=eps, norm=norm)
    hit = goal.reached(model(moved))
    last = hit | ~fooled[active]
    found[active[last]] = moved[last]
    fooled[active[hit]] = True
    return found, fooled
