"""SimBA: one direction after another, kept when the score says so.

Guo, Gardner, You, Wilson & Weinberger, "Simple Black-box Adversarial Attacks", ICML 2019. The
directions are single pixels or low frequencies (the cosine basis). The model is only called, and
must answer with scores (see `blackbox`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from guard.attacks.ball import Ball, project
from guard.attacks.blackbox import Model, Oracle, Tally
from guard.attacks.craft import crafts
from guard.attacks.goal import Goal, Loss

NORM = "l2"

Basis = Literal["pixel", "dct"]


@crafts
def simba(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    basis: Basis = "dct",
    share: float = 0.25,
    step: float = 0.2,
    queries: int = 1000,
    eps: float | None = None,
    norm: Ball = "l2",
    loss: Loss = "ce",
    levels: int | None = None,
    targets: Tensor | None = None,
    tally: Tally | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Try +-`step` along random orthogonal directions, keep what helps (Guo et al. 2019).

    model: points to scores (Q, K), only called; images (N, C, H, W), labels (N,); basis: "pixel",
    or "dct" with the lowest `share` of the frequencies each way; step: length of a trial; queries:
    at most, per image (one to begin with, one or two per direction); eps: the change stays within
    this in `norm`, None for no bound but sqrt(directions) * step; loss: "ce" is the paper's, the
    label's probability; levels: 255 for a model that sees 8-bit pictures; targets (N,): wanted
    classes, None for any wrong one; tally: counts each image's queries. An image stops as soon as
    it fools the model.
    """
    oracle = Oracle(model, Goal(labels, targets, loss), limit=queries, levels=levels)
    every = torch.arange(len(images), device=images.device)
    rise, fooled = oracle.rise(images, every)
    climb = _Climb(oracle, images, images.clone(), rise, fooled)
    directions = _Directions(basis, images, share)
    order = directions.shuffled(len(images), generator)
    for turn in range(order.shape[1]):
        rows = every[~climb.fooled & (oracle.left(every) > 0)]
        if not len(rows):
            break
        unit = directions.at(order[rows, turn])
        for sign in (-1, 1):
            moved = climb.current[rows] + sign * step * unit
            if eps is not None:
                moved = project(moved, images[rows], eps=eps, norm=norm)
            kept = climb.attempt(moved.clamp(0, 1), rows)
            rows, unit = rows[~kept], unit[~kept]
    if tally is not None:
        tally.add(oracle.spent)
    return oracle.seen(climb.current)


@dataclass
class _Climb:
    """Where N images stand."""

    oracle: Oracle
    images: Tensor
    current: Tensor
    rise: Tensor
    fooled: Tensor

    def attempt(self, moved: Tensor, rows: Tensor) -> Tensor:
        """Ask about points for the images `rows` (R,); keep the better ones, return which."""
        rise, fooled = self.oracle.rise(moved, rows)
        kept = (rise > self.rise[rows]) | fooled
        better = rows[kept]
        self.current[better], self.rise[better] = moved[kept], rise[kept]
        self.fooled[better] = fooled[kept]
        return kept


class _Directions:
    """An orthonormal basis of pictures like `images`, or its low frequencies."""

    def __init__(self, basis: Basis, images: Tensor, share: float) -> None:
        self.shape = images.shape[1:]
        _, height, width = self.shape
        self._down, self._along = _cosines(height, images), _cosines(width, images)
        if basis == "pixel":
            self._down, self._along = torch.eye(height).to(images), torch.eye(width).to(images)
        low = 1.0 if basis == "pixel" else share
        self._high, self._wide = math.ceil(low * height), math.ceil(low * width)

    def shuffled(self, count: int, generator: torch.Generator | None) -> Tensor:
        """(N, D): every direction once per image, in random order."""
        size = self.shape[0] * self._high * self._wide
        device = self._down.device
        return torch.rand((count, size), generator=generator, device=device).argsort(1)

    def at(self, index: Tensor) -> Tensor:
        """The directions of these numbers (R,), as pictures (R, C, H, W) of length 1."""
        channel, place = index // (self._high * self._wide), index % (self._high * self._wide)
        down, along = self._down[place // self._wide], self._along[place % self._wide]
        out = down.new_zeros((len(index), *self.shape))
        rows = torch.arange(len(index), device=index.device)
        out[rows, channel] = down[:, :, None] * along[:, None, :]
        return out


def _cosines(size: int, like: Tensor) -> Tensor:
    """(size, size): the orthonormal cosine basis (DCT-II), one vector a row, slow ones first."""
    at = torch.arange(size, dtype=torch.float64)
    waves = torch.cos(math.pi / size * (at[None] + 0.5) * at[:, None]) * math.sqrt(2 / size)
    waves[0] /= math.sqrt(2)
    return waves.to(like)
