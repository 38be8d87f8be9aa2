"""The classifier as if it were linear: gaps to the rival classes and how they change."""

from __future__ import annotations

import torch
from torch import Tensor

from guard.attacks.ball import Ball, lengths
from guard.attacks.goal import Classifier, full


def rivals(logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """(N, R): the likeliest `count` classes other than the label, fewer where there are fewer."""
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.topk(max(1, min(count, logits.shape[1] - 1)), dim=1).indices


def linearise(
    model: Classifier, points: Tensor, labels: Tensor, wrong: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gaps (N, R) from label to rivals, their gradients (R, N, C, H, W), not yet fooled (N,)."""
    points = points.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = full(model(points))
        gaps = logits.gather(1, wrong) - logits.gather(1, labels[:, None])
        each = gaps.sum(0).unbind()
        slopes = [
            torch.autograd.grad(gap, points, retain_graph=k + 1 < len(each))[0]
            for k, gap in enumerate(each)
        ]
    return gaps.detach(), torch.stack(slopes).nan_to_num(0.0), logits.argmax(1) == labels


def reach(slopes: Tensor, *, norm: Ball) -> Tensor:
    """(N, R): how fast each gap changes per unit of change in `norm`; the dual norm."""
    flat = slopes.flatten(2)
    return (flat.abs().sum(2) if norm == "linf" else flat.norm(dim=2)).T


def crossing(value: Tensor, slope: Tensor, points: Tensor, *, norm: Ball) -> Tensor:
    """(N, C, H, W): the smallest change in `norm` that takes value + slope * change to zero.

    value (N,), slope and points (N, C, H, W). The changed points stay in [0, 1]; where zero lies
    outside, the change goes as far as it can. Every pixel moves by min(t * pace, room): a concave
    function of t that is linear in pieces, whose root Newton's method finds from the left in a few
    rounds (Croce & Hein 2020 sort the pixels instead, which takes several times as long).
    """
    size = slope.abs()
    down = (slope * -value.sign()[:, None, None, None]) < 0
    room = torch.where(down, points, 1 - points).masked_fill(size == 0, 0)
    pace = torch.ones_like(size) if norm == "linf" else size / lengths(size).clamp_min(1e-30)
    goal, time = value.abs(), torch.zeros_like(value)
    for _ in range(40):
        ahead = time[:, None, None, None] * pace
        free = ahead < room
        come = (size * torch.minimum(ahead, room)).sum((1, 2, 3))
        speed = (size * pace * free).sum((1, 2, 3))
        short = goal - come
        going = (short > 1e-6 * goal) & (speed > 0)
        if not bool(going.any()):
            break
        time = torch.where(going, time + short / speed.clamp_min(1e-30), time)
    change = torch.minimum(time[:, None, None, None] * pace, room)
    return torch.where(down, -change, change)


def nearest(gaps: Tensor, slopes: Tensor, *, norm: Ball) -> tuple[Tensor, Tensor]:
    """Of the linear boundaries the nearest: its gap (N,) and slope (N, C, H, W)."""
    near = (gaps.abs() / reach(slopes, norm=norm).clamp_min(1e-12)).argmin(1)
    rows = torch.arange(len(near), device=near.device)
    return gaps[rows, near], slopes[near, rows]
