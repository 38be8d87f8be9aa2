"""Square: a random search over squares, that needs the logits alone.

Andriushchenko, Croce, Flammarion & Hein, "Square Attack: a query-efficient black-box adversarial
attack via random search", ECCV 2020. The model is only ever called, never differentiated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from guard.attacks.ball import Ball, lengths, project
from guard.attacks.craft import crafts
from guard.attacks.goal import Classifier, Goal, Loss, full

NORM = "linf"
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of the area, at these queries


@crafts
def square(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    queries: int = 5000,
    norm: Ball = "linf",
    area: float = 0.8,
    rescale: bool = False,
    loss: Loss = "margin",
    targets: Tensor | None = None,
    restarts: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Squares of new values, kept where they help (Andriushchenko et al. 2020).

    images (N, C, H, W), labels (N,); eps: budget in `norm`; queries: per image at most, after the
    one for the image itself; area: share of the picture that the first squares cover, halved on a
    schedule made for 10,000 queries, which `rescale` fits to `queries`; targets (N,): wanted
    classes, None for any wrong one. An image leaves the batch once it fools the model. Those
    misclassified already come back unchanged, those that never fool it at their highest loss.
    """
    goal, out = Goal(labels, targets, loss), images.clone()
    search = _Search(model, eps, norm, queries, area, rescale, generator)
    standing = (~search.ask(images, goal)[1]).nonzero()[:, 0]
    for _ in range(restarts):
        if not len(standing):
            break
        found, fooled = search.run(images[standing], goal[standing])
        out[standing] = found
        standing = standing[~fooled]
    return out


@dataclass(frozen=True)
class _Search:
    """What does not change during a search."""

    model: Classifier
    eps: float
    norm: Ball
    queries: int
    area: float
    rescale: bool
    generator: torch.Generator | None

    def run(self, images: Tensor, goal: Goal) -> tuple[Tensor, Tensor]:
        """One search from stripes or tiles: the points found, (N,) whether they fool."""
        best = self._stripes(images) if self.norm == "linf" else self._tiles(images)
        level, hit = self.ask(best, goal)
        out, fooled = best.clone(), hit.clone()
        active = torch.arange(len(images), device=images.device)
        for k in range(self.queries - 1):
            if bool(hit.any()):
                keep = (~hit).nonzero()[:, 0]
                active, images, goal = active[keep], images[keep], goal[keep]
                best, level = best[keep], level[keep]
            if not len(active):
                break
            tried = self._new(images, best, self._edge(k, images))
            reached, hit = self.ask(tried, goal)
            better = (hit | (reached > level))[:, None, None, None]
            best = torch.where(better, tried, best)
            level = torch.maximum(level, reached)
            out[active], fooled[active] = best, hit
        return out, fooled

    def ask(self, images: Tensor, goal: Goal) -> tuple[Tensor, Tensor]:
        """(N,) loss and (N,) whether the goal is reached: one query per image."""
        logits = full(self.model(images))
        answered = logits.isfinite().all(1)  # a live server may give none: nobody is fooled
        rise = goal.rise(logits.nan_to_num())
        return rise.masked_fill(~answered, -torch.inf), goal.reached(logits) & answered

    def _edge(self, query: int, images: Tensor) -> int:
        """Edge of the next square in pixels."""
        height, width = images.shape[2:]
        scaled = query * 10000 // self.queries if self.rescale else query
        share = self.area / 2 ** sum(scaled > bound for bound in _HALVINGS)
        edge = round(math.sqrt(share * height * width))
        if self.norm == "l2":
            edge = max(edge, 3)
            edge += 1 - edge % 2
        return max(1, min(edge, height, width))

    def _new(self, images: Tensor, best: Tensor, edge: int) -> Tensor:
        """Another point of the ball: one square of the best point drawn anew."""
        if self.norm == "linf":
            top, left = self._corner(images, edge)
            window = (..., slice(top, top + edge), slice(left, left + edge))
            colour = self.eps * self._signs(images, 1, 1)
            tried = best.clone()
            tried[window] = (images[window] + colour).clamp(0, 1)
            return tried
        return self._moved(images, best, edge)

    def _moved(self, images: Tensor, best: Tensor, edge: int) -> Tensor:
        """L2: one square takes over the length of another and grows a new bump."""
        change = best - images
        here, there = self._corner(images, edge), self._corner(images, edge)
        new, old = (
            (..., slice(top, top + edge), slice(left, left + edge)) for top, left in (here, there)
        )
        left_over = (self.eps**2 - lengths(change) ** 2).clamp_min(0) / images.shape[1]
        both = torch.zeros_like(change[:1, :1])
        both[new], both[old] = 1, 1
        freed = (change * both).square().sum((2, 3), keepdim=True)
        bump = self._bump(edge, images) * self._signs(images, 1, 1) + _unit(change[new])
        change[old] = 0
        change[new] = _unit(bump) * (left_over + freed).sqrt()
        change = change * (self.eps / lengths(change).clamp_min(1e-12))
        return project(images + change, images, eps=self.eps, norm="l2")

    def _stripes(self, images: Tensor) -> Tensor:
        """L-inf start: vertical stripes of full strength."""
        return (images + self.eps * self._signs(images, 1, images.shape[3])).clamp(0, 1)

    def _tiles(self, images: Tensor) -> Tensor:
        """L2 start: a grid of bumps, of full length together."""
        height, width = images.shape[2:]
        edge = max(1, min(height, width) // 5)
        change = torch.zeros_like(images)
        for top in range(0, height - edge + 1, edge):
            for left in range(0, width - edge + 1, edge):
                tile = self._bump(edge, images) * self._signs(images, 1, 1)
                change[..., top : top + edge, left : left + edge] = tile
        change = change * (self.eps / lengths(change).clamp_min(1e-12))
        return (images + change).clamp(0, 1)

    def _corner(self, images: Tensor, edge: int) -> tuple[int, int]:
        """Upper left corner of a square that lies in the picture."""
        share = torch.rand(2, generator=self.generator, device=images.device).tolist()
        room = [images.shape[2] - edge + 1, images.shape[3] - edge + 1]
        return int(share[0] * room[0]), int(share[1] * room[1])

    def _signs(self, images: Tensor, height: int, width: int) -> Tensor:
        """(N, C, height, width): -1 or 1."""
        shape = (*images.shape[:2], height, width)
        coin = torch.rand(shape, generator=self.generator, device=images.device)
        return torch.where(coin < 0.5, -1.0, 1.0).to(images.dtype)

    def _bump(self, edge: int, images: Tensor) -> Tensor:
        """(edge, edge) of length 1: a hill above a valley, or beside it."""
        bump = _halves(edge).to(images)
        turned = torch.rand(1, generator=self.generator, device=images.device).item() < 0.5
        return bump.T if turned else bump


def _unit(change: Tensor) -> Tensor:
    """Every channel of every image scaled to length 1."""
    size = change.square().sum((2, 3), keepdim=True).sqrt()
    return change / size.clamp_min(1e-12)


@cache
def _halves(edge: int) -> Tensor:
    """(edge, edge) of length 1: a hill above a valley."""
    half = edge // 2
    both = torch.cat([_hill(half, edge), -_hill(edge - half, edge)])
    return both / lengths(both[None])[0, 0].clamp_min(1e-12)


def _hill(height: int, width: int) -> Tensor:
    """(height, width) of length 1: nested rectangles, the smaller the higher."""
    hill = torch.zeros(height, width)
    row, column = height // 2, width // 2
    for k in range(max(height, width) // 2 + 1):
        rows = slice(max(row - k, 0), max(row + k + 1, 0))
        columns = slice(max(column - k, 0), max(column + k + 1, 0))
        hill[rows, columns] += 1 / (k + 1) ** 2
    return hill / lengths(hill[None])[0, 0].clamp_min(1e-12)
