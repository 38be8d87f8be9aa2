"""HopSkipJump: along the boundary by labels alone.

Chen, Jordan & Wainwright, "HopSkipJumpAttack: A Query-Efficient Decision-Based Attack", IEEE S&P
2020. Three things in turn: a binary search to the boundary, a guess of the boundary's slope from
the labels of random points around, a jump along it. The model is only called (see `blackbox`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from guard.attacks.ball import Ball, sizes, steepest
from guard.attacks.blackbox import BATCH, Model, Oracle, Tally
from guard.attacks.craft import crafts
from guard.attacks.goal import Goal

NORM = "l2"
STARTS = 100  # random pictures tried as a first point
HALVINGS = 12  # of a jump that lands on the wrong side


@crafts
def hopskipjump(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    norm: Ball = "l2",
    queries: int = 1000,
    eps: float | None = None,
    probes: int = 100,
    gamma: float = 1.0,
    levels: int | None = None,
    starts: Tensor | None = None,
    targets: Tensor | None = None,
    tally: Tally | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The nearest fooling picture that `queries` labels per image can find (Chen et al. 2020).

    model: points to labels (Q,) or scores (Q, K), only called; images (N, C, H, W), labels (N,);
    norm: what is made small; eps: an image whose change is no longer than this is done; probes:
    points around the boundary in the first round, sqrt(t) times as many in round t; gamma: the
    paper's, scales how near the boundary is approached; levels: 255 for a model that sees 8-bit
    pictures, whose probes must differ by whole levels; starts (N, C, H, W): pictures that fool
    already, by default uniform noise; targets (N,): wanted classes (give `starts` of these),
    None for any wrong one; tally: counts each image's queries. Images for which no first fooling
    point was found come back unchanged.
    """
    oracle = Oracle(model, Goal(labels, targets), limit=queries, levels=levels)
    walk = _Walk(oracle, images, norm, gamma, levels, generator)
    found, rows = walk.begin(starts)
    best, size = found.clone(), sizes(found - images, norm=norm).flatten()
    rows = rows[size[rows] > (eps or 0.0)]
    turn = 0
    while len(rows):
        turn += 1
        moved = walk.hop(found[rows], rows, turn, round(probes * math.sqrt(turn)))
        found[rows] = moved
        length = sizes(moved - images[rows], norm=norm).flatten()
        shorter = length < size[rows]
        best[rows[shorter]], size[rows[shorter]] = moved[shorter], length[shorter]
        rows = rows[(size[rows] > (eps or 0.0)) & (oracle.left(rows) > walk.reserve)]
    if tally is not None:
        tally.add(oracle.spent)
    return oracle.seen(best) if levels else best


@dataclass
class _Walk:
    """N images on their way along the boundary."""

    oracle: Oracle
    images: Tensor
    norm: Ball
    gamma: float
    levels: int | None
    generator: torch.Generator | None

    @property
    def theta(self) -> float:
        """How finely a binary search looks, as a share of the way."""
        size = self.images[0].numel()
        fine = self.gamma / (size * (math.sqrt(size) if self.norm == "l2" else size))
        return max(fine, 1e-6, 0.25 / self.levels if self.levels else 0.0)

    @property
    def reserve(self) -> int:
        """Questions kept for the search that ends a round, and a few for the round itself."""
        return math.ceil(-math.log2(self.theta)) + 10

    def begin(self, starts: Tensor | None) -> tuple[Tensor, Tensor]:
        """First points on the boundary (N, C, H, W), and which images (R,) go on from there."""
        found = self.images.clone()
        every = torch.arange(len(found), device=found.device)
        standing = every[~self.oracle.fooled(found, every)]
        going = []
        for _ in range(1 if starts is not None else STARTS):
            if not len(standing):
                break
            points = self._uniform(found[standing]) if starts is None else starts[standing]
            fooled = self.oracle.fooled(points, standing)
            found[standing[fooled]] = points[fooled]
            going.append(standing[fooled])
            standing = standing[~fooled]
        rows = torch.cat(going) if going else every[:0]
        found[rows] = self._descend(found[rows], rows)
        return found, rows

    def hop(self, points: Tensor, rows: Tensor, turn: int, probes: int) -> Tensor:
        """One round: slope, jump, search. Points on the boundary to points on the boundary."""
        length = sizes(points - self.images[rows], norm=self.norm)
        direction = steepest(self._slope(points, rows, length, turn, probes), norm=self.norm)
        stride, landed = length / math.sqrt(turn), points.clone()
        trying = torch.arange(len(rows), device=rows.device)
        for _ in range(HALVINGS):
            ahead = (points[trying] + stride[trying] * direction[trying]).clamp(0, 1)
            fooled = self.oracle.fooled(ahead, rows[trying])
            landed[trying[fooled]] = ahead[fooled]
            trying = trying[~fooled]
            if not len(trying):
                break
            stride[trying] /= 2
        return self._descend(landed, rows)

    def _descend(self, points: Tensor, rows: Tensor) -> Tensor:
        """Binary search from fooling points towards the originals, up to the boundary."""
        origin = self.images[rows]
        whole = sizes(points - origin, norm=self.norm)
        low, high = torch.zeros_like(whole), torch.ones_like(whole)
        for _ in range(math.ceil(-math.log2(self.theta))):
            middle = (low + high) / 2
            fooled = self.oracle.fooled(self._between(origin, points, middle, whole), rows)
            at = fooled[:, None, None, None]
            low, high = torch.where(at, low, middle), torch.where(at, middle, high)
        return self._between(origin, points, high, whole)

    def _between(self, origin: Tensor, points: Tensor, share: Tensor, whole: Tensor) -> Tensor:
        if self.norm == "l2":
            return origin + share * (points - origin)
        return origin + (points - origin).clamp(-share * whole, share * whole)

    def _slope(
        self, points: Tensor, rows: Tensor, length: Tensor, turn: int, probes: int
    ) -> Tensor:
        """The boundary's normal (R, C, H, W), from the labels of random points around."""
        reach = self._reach(length, turn)
        counts = (self.oracle.left(rows) - self.reserve + 5).clamp(1, probes)
        total, signed = torch.zeros_like(points), torch.zeros_like(points)
        votes, each = torch.zeros_like(length), max(1, BATCH // len(rows))
        for done in range(0, int(counts.max()), each):
            now = (counts - done).clamp(0, each)
            at = torch.arange(len(rows), device=rows.device).repeat_interleave(now)
            around = points[at]
            near = (around + reach[at] * self._unit(around)).clamp(0, 1)
            noise = (near - around) / reach[at]
            vote = torch.where(self.oracle.fooled(near, rows[at]), 1.0, -1.0)[:, None, None, None]
            total.index_add_(0, at, noise)
            signed.index_add_(0, at, noise * vote)
            votes.index_add_(0, at, vote)
        mean = votes / counts[:, None, None, None]
        return torch.where(mean.abs() < 1, signed - mean * total, signed)

    def _reach(self, length: Tensor, turn: int) -> Tensor:
        """How far from the boundary points are probed, in L2; the paper's delta."""
        size = self.images[0].numel()
        scale = math.sqrt(size) if self.norm == "l2" else size
        reach = torch.full_like(length, 0.1) if turn == 1 else scale * self.theta * length
        return reach.clamp_min(math.sqrt(size) / self.levels if self.levels else 1e-6)

    def _unit(self, like: Tensor) -> Tensor:
        """Random directions of length 1."""
        noise = torch.empty_like(like)
        if self.norm == "l2":
            noise.normal_(generator=self.generator)
        else:
            noise.uniform_(-1, 1, generator=self.generator)
        return steepest(noise, norm="l2")

    def _uniform(self, like: Tensor) -> Tensor:
        return torch.empty_like(like).uniform_(generator=self.generator)
