"""The sticker that turns one sign into another: designed on some pictures, judged on others.

Brown et al. 2017; Eykholt et al. 2018. The print is designed once, over many poses and lights, on
pictures the attacker owns; success is counted on pictures nobody designed it on, in poses drawn
anew, and beside it what a plain grey sticker of that size does: some pictures are lost to any
sticker. Letters: N images, C H W.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from guard.attacks.craft import frozen
from guard.attacks.goal import Goal
from guard.attacks.patch import Sticker, design
from guard.data import ImageSet
from guard.evaluation.victim import Victim


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
