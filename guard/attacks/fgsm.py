"""FGSM: one step of the gradient's sign.

Goodfellow, Shlens & Szegedy, "Explaining and Harnessing Adversarial Examples", ICLR 2015.
"""

from __future__ import annotations

import torch
from torch import Tensor

from guard.attacks.craft import crafts
from guard.attacks.goal import Classifier, Goal, Loss, slope

NORM = "linf"


@crafts
def fgsm(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    loss: Loss = "ce",
    targets: Tensor | None = None,
    generator: torch.Generator | None = None,  # noqa: ARG001 - nothing is drawn
) -> Tensor:
    """Move every pixel by `eps` the way the loss rises (Goodfellow et al. 2015).

    images (N, C, H, W), labels (N,); eps: L-inf budget; targets (N,): wanted classes, None for
    any wrong one. Deterministic.
    """
    _, gradient = slope(model, images, Goal(labels, targets, loss))
    return (images + eps * gradient.sign()).clamp(0, 1)
