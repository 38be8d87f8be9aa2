"""APGD: PGD that finds its own step size, by looking back at checkpoints.

Croce & Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse
Parameter-free Attacks", ICML 2020: momentum 0.75; a step of twice eps, halved for an image when
it rose in fewer than 75% of the steps since the last checkpoint, or when neither its best loss nor
its step changed there; on halving, back to the best point.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from guard.attacks.ball import Ball, draw, project, steepest
from guard.attacks.craft import crafts
from guard.attacks.goal import Classifier, Goal, Loss, full, slope

NORM = "linf"
_MOMENTUM, _RISES = 0.75, 0.75


@crafts
def apgd(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: int = 100,
    norm: Ball = "linf",
    loss: Loss = "ce",
    targets: Tensor | None = None,
    restarts: int = 1,
    early_stop: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Auto-PGD in the L-inf or L2 ball (Croce & Hein 2020); loss "ce" or "dlr".

    images (N, C, H, W), labels (N,); eps: budget in `norm`; targets (N,): wanted classes, None for
    any wrong one; restarts: fresh starts for images that still stand; early_stop: an image leaves
    the batch once it fools the model, else it climbs on to the fooling point of the highest loss.
    Images that are misclassified already come back unchanged; those that never fool the model come
    back at the point of the highest loss.
    """
    goal = Goal(labels, targets, loss)
    return _restarted(
        model, images, [(goal, goal)] * restarts, eps=eps, steps=steps, norm=norm,
        early_stop=early_stop, generator=generator,
    )  # fmt: skip


@crafts
def apgd_t(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: int = 100,
    norm: Ball = "linf",
    classes: int = 9,
    restarts: int = 1,
    early_stop: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """APGD towards each of the likeliest wrong classes in turn, with the targeted DLR loss.

    images (N, C, H, W), labels (N,); classes: how many wrong classes, fewer where there are fewer;
    any wrong answer counts as success. The rest is as for `apgd`.
    """
    wrong = full(model(images)).scatter(1, labels[:, None], -torch.inf)
    targets = wrong.topk(max(1, min(classes, wrong.shape[1] - 1)), dim=1).indices
    away = Goal(labels, None, "dlr")
    runs = [(Goal(labels, t, "dlr"), away) for t in targets.unbind(1) for _ in range(restarts)]
    return _restarted(
        model, images, runs, eps=eps, steps=steps, norm=norm, early_stop=early_stop,
        generator=generator,
    )  # fmt: skip


def _restarted(
    model: Classifier,
    images: Tensor,
    runs: list[tuple[Goal, Goal]],
    *,
    eps: float,
    steps: int,
    norm: Ball,
    early_stop: bool,
    generator: torch.Generator | None,
) -> Tensor:
    """One run after another, each with what to raise and what counts, on those that stand."""
    out = images.clone()
    standing = (~runs[0][1].reached(full(model(images)))).nonzero()[:, 0]
    for raised, wanted in runs:
        if not len(standing):
            break
        origin = images[standing]
        start = draw(origin, eps=eps, norm=norm, generator=generator)
        climb = _Climb.begin(model, origin, start, raised[standing], wanted[standing], eps)
        found, fooled = climb.run(model, eps=eps, steps=steps, norm=norm, early_stop=early_stop)
        out[standing] = found
        standing = standing[~fooled]
    return out


@dataclass
class _Climb:
    """The images still climbing, a row each; `rows` says which of the batch they are."""

    rows: Tensor
    images: Tensor
    raised: Goal  # what the gradient raises
    wanted: Goal  # what counts as fooled
    moved: Tensor
    previous: Tensor  # the point before
    gradient: Tensor
    level: Tensor  # (N,) the loss at `moved`
    best: Tensor  # the point of the highest loss
    best_gradient: Tensor
    best_level: Tensor
    top: Tensor  # (N,) the highest loss of a fooling point, -inf where there was none
    step: Tensor  # (N, 1, 1, 1)
    rises: Tensor  # (N,) steps since the last checkpoint that raised the loss
    checked_level: Tensor  # `best_level` at the last checkpoint
    halved: Tensor  # (N,) bool: there the step was halved

    @classmethod
    def begin(
        cls,
        model: Classifier,
        images: Tensor,
        start: Tensor,
        raised: Goal,
        wanted: Goal,
        eps: float,
    ) -> Self:
        """All images at their start, with its gradient."""
        logits, gradient = slope(model, start, raised)
        level = raised.rise(logits)
        fooled = wanted.reached(logits)
        return cls(
            rows=torch.arange(len(images), device=images.device),
            images=images,
            raised=raised,
            wanted=wanted,
            moved=start,
            previous=start,
            gradient=gradient,
            level=level,
            best=start.clone(),
            best_gradient=gradient.clone(),
            best_level=level.clone(),
            top=torch.where(fooled, level, -torch.inf),
            step=images.new_full((len(images), 1, 1, 1), 2 * eps),
            rises=torch.zeros_like(level),
            checked_level=level.clone(),
            halved=torch.ones_like(fooled),
        )

    def run(
        self, model: Classifier, *, eps: float, steps: int, norm: Ball, early_stop: bool
    ) -> tuple[Tensor, Tensor]:
        """The points found and (N,) whether they fool the model."""
        found, fooled = self.moved.clone(), self.top > -torch.inf
        window, since = max(int(0.22 * steps), 1), 0
        for k in range(steps):
            if early_stop and not self._without(self.top > -torch.inf):
                return found, fooled
            self._advance(eps, norm, 1.0 if k == 0 else _MOMENTUM)
            hit = self._look(model, last=k == steps - 1)
            found[self.rows[hit]], fooled[self.rows[hit]] = self.moved[hit], True
            since += 1
            if since == window:
                self._checkpoint(window)
                window, since = max(window - max(int(0.03 * steps), 1), int(0.06 * steps), 1), 0
        never = ~fooled[self.rows]
        found[self.rows[never]] = self.best[never]
        return found, fooled

    def _without(self, done: Tensor) -> bool:
        """Let images leave; False when none is left."""
        if bool(done.any()):
            keep = (~done).nonzero()[:, 0]
            for field in fields(self):
                setattr(self, field.name, getattr(self, field.name)[keep])
        return len(self.rows) > 0

    def _advance(self, eps: float, norm: Ball, momentum: float) -> None:
        """A projected step, mixed with the last one."""
        ahead = self.moved + self.step * steepest(self.gradient, norm=norm)
        ahead = project(ahead, self.images, eps=eps, norm=norm)
        if momentum < 1:
            inert = self.moved - self.previous
            ahead = self.moved + momentum * (ahead - self.moved) + (1 - momentum) * inert
            ahead = project(ahead, self.images, eps=eps, norm=norm)
        self.previous, self.moved = self.moved, ahead

    def _look(self, model: Classifier, *, last: bool) -> Tensor:
        """Take loss and gradient where we are; (N,) bool: a fooling point better than before."""
        if last:  # no step follows that would need a gradient
            logits = full(model(self.moved))
        else:
            logits, self.gradient = slope(model, self.moved, self.raised)
        level = self.raised.rise(logits)
        hit = self.wanted.reached(logits) & (level > self.top)
        self.top = torch.where(hit, level, self.top)
        self.rises += level > self.level
        better = level > self.best_level
        self.level, self.best_level = level, torch.maximum(level, self.best_level)
        wide = better[:, None, None, None]
        self.best = torch.where(wide, self.moved, self.best)
        self.best_gradient = torch.where(wide, self.gradient, self.best_gradient)
        return hit

    def _checkpoint(self, window: int) -> None:
        """Halve the step and go back to the best point where progress has ended."""
        stuck = ~self.halved & (self.checked_level >= self.best_level)
        halve = (self.rises <= _RISES * window) | stuck
        wide = halve[:, None, None, None]
        self.step = torch.where(wide, self.step / 2, self.step)
        self.moved = torch.where(wide, self.best, self.moved)
        self.gradient = torch.where(wide, self.best_gradient, self.gradient)
        self.halved, self.checked_level = halve, self.best_level.clone()
        self.rises = torch.zeros_like(self.rises)
