"""MI-FGSM: momentum steadies the direction, and the examples transfer better.

Dong, Liao, Pang, Su, Zhu, Hu & Li, "Boosting Adversarial Attacks with Momentum", CVPR 2018.
"""

from __future__ import annotations

import torch
from torch import Tensor

from guard.attacks.ball import Ball
from guard.attacks.climb import climb
from guard.attacks.craft import crafts
from guard.attacks.goal import Classifier, Goal, Loss

NORM = "linf"


@crafts
def mifgsm(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: int = 10,
    step: float | None = None,
    decay: float = 1.0,
    norm: Ball = "linf",
    loss: Loss = "ce",
    targets: Tensor | None = None,
    early_stop: bool = False,
    generator: torch.Generator | None = None,  # noqa: ARG001 - nothing is drawn
) -> Tensor:
    """Steps along a decaying sum of gradients of unit mean size (Dong et al. 2018).

    images (N, C, H, W), labels (N,); eps: budget in `norm`; step: by default eps / steps, as in
    the paper; decay: of the sum, 0 to 1; targets (N,): wanted classes, None for any wrong one;
    early_stop: an image leaves once it fools the model. Deterministic.
    """
    found, _ = climb(
        model, images, images, Goal(labels, targets, loss), eps=eps, steps=steps,
        step=eps / steps if step is None else step, norm=norm, early_stop=early_stop, decay=decay,
    )  # fmt: skip
    return found
