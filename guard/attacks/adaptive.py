"""The attack that knows everything but the secret: through the defence, against the detector.

Athalye, Carlini & Wagner, "Obfuscated Gradients Give a False Sense of Security", ICML 2018 (BPDA
and expectation over the noise); Tramer, Carlini, Brendel & Madry, "On Adaptive Attacks", NeurIPS
2020; Bryniarski et al., "Evading Adversarial Example Detection Defenses", ICLR 2022. The served
graph is differentiated as it is: its rounding and votes pass gradients straight through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from guard.attacks import round8
from guard.attacks.ball import Ball, draw, lengths, project, steepest
from guard.attacks.goal import Classifier, Goal
from guard.defenses import log_of, straight_through
from guard.defenses.detector import Detector
from guard.defenses.evidence import EvidenceGraph

NORM = "linf"


@dataclass(frozen=True)
class Target:
    """What is attacked: a classifier behind the evidence graph and its detector.

    victim: the production model that answers, pixels to logits; None when the robust ensemble
    answers. All of it in eval mode, on one device.
    """

    graph: EvidenceGraph
    detector: Detector
    victim: Classifier | None = None

    def look(
        self, images: Tensor, goal: Goal, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """The answer's logits (N, K) and the detector's score (N,) under fresh noise.

        Where the victim is not fooled yet, the detector is shown the best wrong answer: the one
        it will see once the attack has worked.
        """
        shape = (len(images), self.graph.copies, *images.shape[1:])
        noise = torch.empty(shape, device=images.device).normal_(generator=generator)
        evidence, probabilities = self.graph(images, noise)
        logits = log_of(probabilities) if self.victim is None else self.victim(images)
        answer = one_hot(_wanted(logits.detach(), goal), logits.shape[1]).to(images.dtype)
        alone, both = self.detector(evidence, probabilities, answer)
        return logits, (alone if self.victim is None else both)[:, -1]


def adaptive(
    target: Target,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    threshold: float,
    norm: Ball = "linf",
    steps: int = 100,
    step: float | None = None,
    weights: Sequence[float] = (0.3, 1.0, 3.0),
    draws: int = 1,
    confidence: float = 1.0,
    momentum: float = 0.75,
    targets: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Fool the answer and stay below the detector's threshold (Tramer et al. 2020).

    Raises min(margin, confidence) - weight * max(score - threshold, 0) by projected gradient
    ascent with momentum, once per weight, and keeps for every image the fooling point with the
    lowest score; an image that was never fooled keeps the last point. images (N, C, H, W),
    labels (N,); threshold: the detector's score at the operator's budget, minus whatever safety
    the attacker wants; step: by default a quarter of eps; draws: how many noise draws each
    gradient is averaged over. Pixels are rounded to 8 bits inside the loss, so that what was found
    survives the trip.
    """
    goal = Goal(labels, targets, "margin")
    aim = _Aim(target, images.detach(), goal, eps, norm, threshold, confidence, draws, generator)
    length = eps / 4 if step is None else step
    best, lowest = aim.images, torch.full_like(labels, torch.inf, dtype=images.dtype)
    for weight in weights:
        found = aim.climb(weight, steps, length, momentum)
        score = aim.judge(found, checks=4)
        better = (score < lowest) | ((score == lowest) & (lowest == torch.inf))
        best = torch.where(better[:, None, None, None], found, best)
        lowest = torch.minimum(score, lowest)
    return best


@dataclass(frozen=True)
class _Aim:
    """One batch under attack."""

    target: Target
    images: Tensor
    goal: Goal
    eps: float
    norm: Ball
    threshold: float
    confidence: float
    draws: int
    generator: torch.Generator | None

    def climb(self, weight: float, steps: int, step: float, momentum: float) -> Tensor:
        """The fooling point of the lowest score on one way up; else the last point."""
        moved = draw(self.images, eps=self.eps, norm=self.norm, generator=self.generator)
        speed = torch.zeros_like(moved)
        found, lowest = self.rounded(moved), torch.full_like(moved[:, 0, 0, 0], torch.inf)
        for _ in range(steps):
            score, gradient = self.slope(moved, weight)
            better = score < lowest
            found = torch.where(better[:, None, None, None], self.rounded(moved), found)
            lowest = torch.minimum(score, lowest)
            speed = momentum * speed + gradient / lengths(gradient).clamp_min(1e-12)
            moved = moved + step * steepest(speed, norm=self.norm)
            moved = project(moved, self.images, eps=self.eps, norm=self.norm)
        last = (lowest == torch.inf)[:, None, None, None]
        return torch.where(last, self.rounded(moved), found)

    def slope(self, moved: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        """Scores (N,), inf where not fooled, and the joint loss's gradient (N, C, H, W)."""
        moved = moved.detach().requires_grad_(True)
        score = torch.zeros_like(moved[:, 0, 0, 0])
        rise, fooled = torch.zeros_like(score), torch.ones_like(score, dtype=torch.bool)
        with torch.enable_grad():
            seen = straight_through(self.rounded(moved), moved)
            for _ in range(self.draws):
                logits, one = self.target.look(seen, self.goal, self.generator)
                gap = self.goal.margin(logits).clamp_max(self.confidence)
                rise = rise + gap - weight * (one - self.threshold).clamp_min(0)
                score, fooled = score + one / self.draws, fooled & self.goal.reached(logits)
            (gradient,) = torch.autograd.grad(rise.sum(), moved)
        return score.detach().masked_fill(~fooled, torch.inf), gradient.nan_to_num()

    def judge(self, found: Tensor, *, checks: int) -> Tensor:
        """Mean scores (N,) of points over fresh noise; inf where the answer is still right."""
        with torch.no_grad():
            looks = [self.target.look(found, self.goal, self.generator) for _ in range(checks)]
        score = torch.stack([score for _, score in looks]).mean(0)
        return score.masked_fill(~self.goal.reached(looks[0][0]), torch.inf)

    def rounded(self, moved: Tensor) -> Tensor:
        """The 8-bit picture, still inside the ball."""
        return project(round8(moved.detach()), self.images, eps=self.eps, norm=self.norm)


def _wanted(logits: Tensor, goal: Goal) -> Tensor:
    """(N,): the answer if it fools already, else the target or the best wrong class."""
    if goal.targets is not None:
        return goal.targets
    return logits.scatter(1, goal.labels[:, None], -torch.inf).argmax(1)
