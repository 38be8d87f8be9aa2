"""The ball around a picture that an attack must not leave: draws, steps and projections."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Ball = Literal["linf", "l2"]


def lengths(change: Tensor) -> Tensor:
    """(N, 1, 1, 1): the Euclidean length of each image's change."""
    size: Tensor = change.flatten(1).norm(dim=1)
    return size[:, None, None, None]


def sizes(change: Tensor, *, norm: Ball) -> Tensor:
    """(N, 1, 1, 1): the size of each image's change in `norm`."""
    return change.abs().amax((1, 2, 3), keepdim=True) if norm == "linf" else lengths(change)


def draw(images: Tensor, *, eps: float, norm: Ball, generator: torch.Generator | None) -> Tensor:
    """A point drawn uniformly from each image's ball, clipped to [0, 1]."""
    if norm == "linf":
        step = 2 * _uniform(images.shape, images, generator) - 1
    else:
        step = torch.empty_like(images).normal_(generator=generator)
        share = _uniform((len(images), 1, 1, 1), images, generator)
        step = step / lengths(step).clamp_min(1e-12) * share ** (1 / images[0].numel())
    return (images + eps * step).clamp(0, 1)


def steepest(gradient: Tensor, *, norm: Ball) -> Tensor:
    """The direction of unit size in `norm` that rises fastest."""
    if norm == "linf":
        return gradient.sign()
    return gradient / lengths(gradient).clamp_min(1e-12)


def project(moved: Tensor, images: Tensor, *, eps: float, norm: Ball) -> Tensor:
    """The nearest point of each image's ball, clipped to [0, 1]."""
    change = moved - images
    if norm == "linf":
        change = change.clamp(-eps, eps)
    else:
        change = change * (eps / lengths(change).clamp_min(1e-12)).clamp_max(1)
    return (images + change).clamp(0, 1)


def ascend(
    moved: Tensor, gradient: Tensor, images: Tensor, *, step: float, eps: float, norm: Ball
) -> Tensor:
    """project(moved + step * steepest(gradient), ...) in the memory of `moved` and `gradient`."""
    if norm == "l2":
        moved.add_(steepest(gradient, norm=norm), alpha=step)
        return project(moved, images, eps=eps, norm=norm)
    change = moved.add_(gradient.sign_(), alpha=step).sub_(images).clamp_(-eps, eps)
    return change.add_(images).clamp_(0, 1)


def _uniform(
    shape: torch.Size | tuple[int, ...], like: Tensor, generator: torch.Generator | None
) -> Tensor:
    return torch.rand(shape, generator=generator, device=like.device, dtype=like.dtype)
