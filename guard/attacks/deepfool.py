"""DeepFool: walk to the nearest class boundary as if the classifier were linear.

Moosavi-Dezfooli, Fawzi & Frossard, "DeepFool: a simple and accurate method to fool deep neural
networks", CVPR 2016.
"""

from __future__ import annotations

import torch
from torch import Tensor

from guard.attacks.ball import lengths
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
    rivals = _rivals(model, images, labels, candidates)
    for _ in range(steps):
        gaps, slopes, standing = _linearise(model, out[active], labels[active], rivals[active])
        active, gaps, slopes = active[standing], gaps[standing], slopes[:, standing]
        if not len(active):
            break
        total[active] += _shortest(gaps, slopes)
        out[active] = (images[active] + (1 + overshoot) * total[active]).clamp(0, 1)
    return out


def _rivals(model: Classifier, images: Tensor, labels: Tensor, candidates: int) -> Tensor:
    """(N, R): the likeliest classes other than the label."""
    with torch.no_grad():
        logits = model(images)
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.topk(max(1, min(candidates, logits.shape[1]) - 1), dim=1).indices


def _linearise(
    model: Classifier, points: Tensor, labels: Tensor, rivals: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gaps (N, R) from label to rivals, their gradients (R, N, C, H, W), not yet fooled (N,)."""
    points = points.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = model(points)
        gaps = logits.gather(1, rivals) - logits.gather(1, labels[:, None])
        slopes = [
            torch.autograd.grad(gap.sum(), points, retain_graph=True)[0] for gap in gaps.unbind(1)
        ]
    return gaps.detach(), torch.stack(slopes), logits.argmax(1) == labels


def _shortest(gaps: Tensor, slopes: Tensor) -> Tensor:
    """(N, C, H, W): the step to the nearest of the linear boundaries."""
    sizes = slopes.flatten(2).norm(dim=2).T.clamp_min(1e-8)  # (N, R)
    near = (gaps.abs() / sizes).argmin(1)
    rows = torch.arange(len(near), device=near.device)
    gap, slope = gaps[rows, near].abs()[:, None, None, None], slopes[near, rows]
    return (gap + 1e-4) * slope / lengths(slope).clamp_min(1e-8) ** 2
