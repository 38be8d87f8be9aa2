"""DeepFool: walk to the nearest class boundary as if the classifier were linear.

Moosavi-Dezfooli, Fawzi & Frossard, "DeepFool: a simple and accurate method to fool deep neural
networks", CVPR 2016.
"""

from __future__ import annotations

import torch
from torch import Tensor

from guard.attacks.ball import lengths
from guard.attacks.boundary import linearise, nearest, rivals
from guard.attacks.craft import crafts
from guard.attacks.goal import Classifier

NORM = "l2"


@crafts
def deepfool(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int = 50,
    overshoot: float = 0.02,
    candidates: int = 10,
    generator: torch.Generator | None = None,  # noqa: ARG001 - nothing is drawn
) -> Tensor:
    """The smallest L2 change that crosses a linearised boundary (Moosavi-Dezfooli et al. 2016).

    images (N, C, H, W), labels (N,); overshoot: how far past the boundary, as a share of the
    change; candidates: how many of the likeliest classes are tried. An image stops as soon as it
    fools the model; one that is misclassified already comes back unchanged. Deterministic.
    """
    out, total = images.clone(), torch.zeros_like(images)
    active = torch.arange(len(images), device=images.device)
    wrong = rivals(model(images), labels, candidates - 1)
    for _ in range(steps):
        gaps, slopes, standing = linearise(model, out[active], labels[active], wrong[active])
        active, gaps, slopes = active[standing], gaps[standing], slopes[:, standing]
        if not len(active):
            break
        gap, slope = nearest(gaps, slopes, norm="l2")
        size = lengths(slope).clamp_min(1e-8)
        total[active] += (gap.abs()[:, None, None, None] + 1e-4) * slope / size**2
        out[active] = (images[active] + (1 + overshoot) * total[active]).clamp(0, 1)
    return out
