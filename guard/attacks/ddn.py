"""DDN: the direction follows the gradient, the length follows success.

Rony, Hafemann, Oliveira, Ben Ayed, Sabourin & Granger, "Decoupling Direction and Norm for
Efficient Gradient-Based L2 Adversarial Attacks and Defenses", CVPR 2019.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from guard.attacks.ball import lengths, steepest
from guard.attacks.craft import crafts
from guard.attacks.goal import Classifier, Goal, Loss, slope

NORM = "l2"


@crafts
def ddn(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int = 100,
    gamma: float = 0.05,
    radius: float = 1.0,
    loss: Loss = "ce",
    targets: Tensor | None = None,
    generator: torch.Generator | None = None,  # noqa: ARG001 - nothing is drawn
) -> Tensor:
    """A smallest L2 change in a fixed number of steps (Rony et al. 2019).

    images (N, C, H, W), labels (N,); radius: the length tried first; gamma: by how much it shrinks
    where the model is fooled and grows where it is not; targets (N,): wanted classes, None for any
    wrong one. Images that never fool the model come back unchanged, and so do those that are
    misclassified already. Deterministic.
    """
    goal, change = Goal(labels, targets, loss), torch.zeros_like(images)
    widest = lengths(torch.maximum(images, 1 - images))
    length = torch.full_like(widest, radius)
    best, shortest = images.clone(), torch.full_like(widest, torch.inf)
    for k in range(steps):
        moved = images + change
        logits, gradient = slope(model, moved, goal)
        fooled, size = goal.reached(logits)[:, None, None, None], lengths(change)
        better = fooled & (size < shortest)
        best, shortest = torch.where(better, moved, best), torch.where(better, size, shortest)
        pace = 0.01 + 0.99 * (1 + math.cos(math.pi * k / steps)) / 2
        change = change + pace * steepest(gradient, norm="l2")
        length = (length * torch.where(fooled, 1 - gamma, 1 + gamma)).minimum(widest)
        change = change * (length / lengths(change).clamp_min(1e-12))
        change = (images + change).clamp(0, 1) - images
    return best
