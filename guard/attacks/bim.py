"""BIM: FGSM in small steps from the image itself.

Kurakin, Goodfellow & Bengio, "Adversarial Examples in the Physical World", ICLR workshop 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor

from guard.attacks.climb import climb
from guard.attacks.craft import crafts
from guard.attacks.goal import Classifier, Goal, Loss

NORM = "linf"


@crafts
def bim(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: int | None = None,
    step: float = 1 / 255,
    loss: Loss = "ce",
    targets: Tensor | None = None,
    early_stop: bool = False,
    generator: torch.Generator | None = None,  # noqa: ARG001 - nothing is drawn
) -> Tensor:
    """Signed-gradient steps, clipped to the L-inf ball after each (Kurakin et al. 2017).

    images (N, C, H, W), labels (N,); steps: by default the paper's min(e + 4, 1.25 e), e being eps
    in 1/255; step: the paper's one grey level; targets (N,): wanted classes, None for any wrong
    one; early_stop: an image leaves once it fools the model. Deterministic.
    """
    levels = eps * 255
    count = max(1, round(min(levels + 4, 1.25 * levels))) if steps is None else steps
    found, _ = climb(
        model, images, images, Goal(labels, targets, loss),
        eps=eps, steps=count, step=step, norm="linf", early_stop=early_stop,
    )  # fmt: skip
    return found
