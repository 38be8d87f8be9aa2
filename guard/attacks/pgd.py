"""PGD: many small steps, each projected back into the ball.

Madry, Makelov, Schmidt, Tsipras & Vladu, "Towards Deep Learning Models Resistant to Adversarial
Attacks", ICLR 2018; the margin loss is Carlini & Wagner's (2017).
"""

from __future__ import annotations

import torch
from torch import Tensor

from guard.attacks.ball import Ball, draw
from guard.attacks.climb import climb
from guard.attacks.craft import crafts
from guard.attacks.goal import Classifier, Goal, Loss

NORM = "linf"


@crafts
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
    out = images.clone()
    standing = torch.arange(len(images), device=images.device)
    for _ in range(restarts):
        if not len(standing):
            break
        origin, aim = images[standing], goal[standing]
        start = draw(origin, eps=eps, norm=norm, generator=generator) if random_start else origin
        found, fooled = climb(
            model, origin, start, aim, eps=eps, steps=steps, step=length, norm=norm,
            early_stop=early_stop,
        )  # fmt: skip
        out[standing] = found
        standing = standing[~fooled]
    return out
