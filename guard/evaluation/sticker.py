"""The sticker that turns one sign into another: designed on some pictures, judged on others.

Brown et al. 2017; Eykholt et al. 2018. The print is designed once, over many poses and lights, on
pictures the attacker owns; success is counted on pictures nobody designed it on, in poses drawn
anew, and beside it what a plain grey sticker of that size does: some pictures are lost to any
sticker. Letters: N images, C H W.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from guard.attacks.craft import frozen
from guard.attacks.goal import Goal
from guard.attacks.patch import Sticker, design
from guard.data import ImageSet
from guard.errors import InputError
from guard.evaluation.victim import Victim
from guard.threat import ThreatModel

# Where it sits and how freely: low, where a sign is read less. See Sticker.
PLACING = {"down": 0.68, "right": 0.5, "shift": 2.0, "turn": 15.0, "light": 0.15}


@dataclass(frozen=True)
class Printed:
    """A finished print (1, C, size, size) and how it is stuck on."""

    sticker: Sticker
    pixels: Tensor

    def attack(
        self, images: Tensor, _labels: Tensor, _targets: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """The images (N, C, H, W) with the sticker on, each in a pose of its own."""
        poses = self.sticker.draw(len(images), images, generator)
        return self.sticker.stick(images, self.pixels.to(images), poses)

    @property
    def grey(self) -> Printed:
        """The control: nothing is printed on it."""
        return Printed(self.sticker, torch.full_like(self.pixels, 0.5))

    @property
    def picture(self) -> NDArray[np.uint8]:
        """uint8 (size, size, C)."""
        pixels: NDArray[np.uint8] = (self.pixels[0] * 255).round().byte().cpu().numpy()
        return pixels.transpose(1, 2, 0)


def print_sticker(
    victim: Victim,
    own: ImageSet,
    target: int | None,
    sticker: Sticker,
    *,
    steps: int,
    poses: int = 2,
    limit: int = 64,
    seed: int = 0,
    device: str = "cpu",
) -> Printed:
    """Design a print on at most `limit` of the attacker's own pictures.

    target: the class that they shall be read as, None for any wrong one. Rounded to 8 bits, as
    anything printed from a file is.
    """
    some = own.subset(slice(0, limit))
    images = torch.from_numpy(some.pixels()).to(device)
    labels = torch.from_numpy(some.labels).to(device)
    wanted = None if target is None else torch.full_like(labels, target)
    generator = torch.Generator(device).manual_seed(seed)
    with frozen(victim.model):
        found = design(
            victim.model, images, Goal(labels, wanted), sticker,
            steps=steps, poses=poses, generator=generator,
        )  # fmt: skip
    return Printed(sticker, (found * 255).round() / 255)


def placed(threat: ThreatModel | None, images: ImageSet, options: Mapping[str, float]) -> Sticker:
    """The sticker of a share of the picture's area; options go over PLACING."""
    _, height, width = images.shape
    where = {**PLACING, **options}
    center = (where.pop("down"), where.pop("right"))
    size = math.isqrt(int((0.1 if threat is None else threat.eps) * height * width))
    return Sticker(size=max(1, size), center=center, **where)


def held_out(images: ImageSet, *, seed: int) -> NDArray[np.bool_]:
    """(N,): half of the pictures, whole tracks, on which nothing is designed."""
    groups = np.arange(len(images)) if images.groups is None else images.groups
    other = replace(images, groups=groups).split_by_group(0.5, seed=seed)[1].groups
    if other is None or not len(other):
        raise InputError("a sticker needs two pictures: one to design on, one to judge by")
    return np.isin(groups, other)


def control(
    victim: Victim, held: ImageSet, target: int | None, printed: Printed, *, seed: int, device: str
) -> dict[str, float]:
    """What a grey sticker of the same size does to the held-out pictures."""
    generator = torch.Generator(device).manual_seed(seed + 1)
    images = torch.from_numpy(held.pixels()).to(device)
    labels = torch.from_numpy(held.labels).to(device)
    answer = victim.answers(printed.grey.attack(images, labels, None, generator))
    report = {"grey_wrong": float((answer != labels).float().mean())}
    if target is not None:
        report["grey_success"] = float((answer == target).float().mean())
    return report
