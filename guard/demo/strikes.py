"""The demo's attacks: white-box on the production model, by someone who knows of no gateway.

Letters: N images, C H W.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from guard.attacks.fgsm import fgsm
from guard.attacks.goal import Goal
from guard.attacks.patch import Sticker, design
from guard.attacks.pgd import pgd
from guard.data import ImageSet

FROM, TO = "stop", "speed_50"
STICKER = Sticker(size=10, center=(0.68, 0.5))
ON_HAND = 64  # STOP pictures that the sticker is designed on


@dataclass(frozen=True)
class Strike:
    """One attack: `images` uint8 (N, C, H, W) were made from the pictures at `index` (N,)."""

    name: str
    index: NDArray[np.int64]
    images: NDArray[np.uint8]


@dataclass(frozen=True)
class Target:
    """What is attacked: pictures (N, C, H, W) in [0, 1] that production has right, and how hard.

    own: the attacker's pictures, to design a sticker on.
    """

    network: nn.Module
    pictures: Tensor
    labels: Tensor
    own: ImageSet
    count: int  # pictures per attack
    steps: int  # of PGD
    sticker_steps: int


def strikes(target: Target, generator: torch.Generator) -> Iterator[Strike]:
    """All attacks, made one after another."""
    index = np.arange(min(target.count, len(target.labels)))
    images, labels = target.pictures[index], target.labels[index]
    yield Strike("FGSM 8/255", index, _bytes(fgsm(target.network, images, labels, eps=8 / 255)))
    for eps in (4, 8):
        found = pgd(
            target.network, images, labels,
            eps=eps / 255, steps=target.steps, generator=generator,
        )  # fmt: skip
        yield Strike(f"PGD-{target.steps} {eps}/255", index, _bytes(found))
    yield _sticker(target, generator)


def _sticker(target: Target, generator: torch.Generator) -> Strike:
    """One print, designed on the attacker's own pictures, stuck on every STOP sign there is."""
    start, end = target.own.classes.index(FROM), target.own.classes.index(TO)
    at = np.flatnonzero(target.own.labels == start)[:ON_HAND]
    own = torch.from_numpy(target.own.subset(at).pixels())
    goal = Goal(torch.full((len(own),), start), torch.full((len(own),), end))
    print_ = design(
        target.network, own, goal, STICKER, steps=target.sticker_steps, generator=generator
    )
    index = np.flatnonzero(target.labels.numpy() == start)
    images = target.pictures[index]
    stuck = STICKER.stick(images, print_, STICKER.draw(len(images), images, generator))
    return Strike(f"sticker, {FROM} to {TO}", index, _bytes(stuck))


def _bytes(images: Tensor) -> NDArray[np.uint8]:
    """Rounded to 8 bits, as any picture file is."""
    rounded: NDArray[np.uint8] = (images.detach() * 255).round().byte().numpy()
    return rounded
