"""What an attack wants of the logits, as a number to raise and as a yes or no."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

Classifier = Callable[[Tensor], Tensor]
Loss = Literal["ce", "margin", "dlr"]


@dataclass(frozen=True)
class Goal:
    """Away from `labels` (N,), or towards `targets` (N,) when they are given.

    loss: "ce" is the cross-entropy; "margin" the gap between the best wrong logit and the right
    one (Carlini & Wagner 2017), which does not saturate where the classifier is very sure; "dlr"
    the same gap as a share of the spread of the largest logits (Croce & Hein 2020).
    """

    labels: Tensor
    targets: Tensor | None = None
    loss: Loss = "ce"

    def rise(self, logits: Tensor) -> Tensor:
        """(N,): the number an attack raises; with "margin" it is positive once fooled."""
        if self.loss == "margin":
            return self.margin(logits)
        if self.loss == "dlr":
            return self.ratio(logits)
        if self.targets is None:
            return cross_entropy(logits, self.labels, reduction="none")
        return -cross_entropy(logits, self.targets, reduction="none")

    def margin(self, logits: Tensor) -> Tensor:
        """(N,): best wrong logit minus the label's; or the target's minus the best other."""
        named = self.labels if self.targets is None else self.targets
        at = named[:, None]
        others = logits.scatter(1, at, -torch.inf).amax(1)
        gap = others - logits.gather(1, at).squeeze(1)
        return gap if self.targets is None else -gap

    def ratio(self, logits: Tensor) -> Tensor:
        """(N,): the difference of logits ratio (Croce & Hein 2020), plain or targeted.

        With two classes there is no third logit to divide by: the margin alone.
        """
        top = logits.topk(min(4, logits.shape[1]), dim=1).values
        if self.targets is None:
            spread = top[:, 0] - top[:, 2] if top.shape[1] > 2 else torch.ones_like(top[:, 0])
            return self.margin(logits) / (spread + 1e-12)
        pair = logits.gather(1, torch.stack([self.targets, self.labels], 1))
        spread = top[:, 0] - top[:, 2:].mean(1) if top.shape[1] > 2 else torch.ones_like(top[:, 0])
        return (pair[:, 0] - pair[:, 1]) / (spread + 1e-12)

    def reached(self, logits: Tensor) -> Tensor:
        """(N,) bool: the classifier is fooled."""
        answer = logits.argmax(1)
        return answer != self.labels if self.targets is None else answer == self.targets

    def __getitem__(self, index: Tensor) -> Goal:
        """The goals of some of the images."""
        targets = None if self.targets is None else self.targets[index]
        return Goal(self.labels[index], targets, self.loss)


def slope(model: Classifier, images: Tensor, goal: Goal) -> tuple[Tensor, Tensor]:
    """The logits (N, K) at `images` and the gradient (N, C, H, W) of what the goal raises.

    Logits of half precision (autocast) are compared in single; a gradient that is not a number
    counts as zero, so that one such pixel does not spoil its image.
    """
    images = images.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = full(model(images))
        (gradient,) = torch.autograd.grad(goal.rise(logits).sum(), images)
    return logits.detach(), gradient.nan_to_num(0.0)


def full(logits: Tensor) -> Tensor:
    """At least single precision: losses of half-precision logits are too coarse to climb."""
    return logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
