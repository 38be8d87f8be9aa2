"""AutoAttack: four different attacks, each on what the ones before left standing.

Croce & Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse
Parameter-free Attacks", ICML 2020: APGD on the cross-entropy, targeted APGD on the DLR loss,
targeted FAB, and Square, with the parameters of the authors' "standard" version.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from guard.attacks.apgd import apgd, apgd_t
from guard.attacks.ball import Ball
from guard.attacks.craft import crafts
from guard.attacks.fab import fab_t
from guard.attacks.goal import Classifier
from guard.attacks.square import square
from guard.errors import InputError

NORM = "linf"
Part = Literal["apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square"]
STANDARD: tuple[Part, ...] = ("apgd-ce", "apgd-t", "fab-t", "square")
QUICK: tuple[Part, ...] = ("apgd-ce", "apgd-t")
PARTS: dict[Part, Callable[..., Tensor]] = {
    "apgd-ce": apgd,
    "apgd-dlr": partial(apgd, loss="dlr"),
    "apgd-t": apgd_t,
    "fab-t": fab_t,
    "square": square,
}
Progress = Callable[[str, int, int], None]


@crafts
def autoattack(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: Ball = "linf",
    parts: Sequence[Part] = STANDARD,
    steps: int = 100,
    queries: int = 5000,
    batch: int = 250,
    progress: Progress | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The ensemble of attacks, on survivors only (Croce & Hein 2020).

    images (N, C, H, W), labels (N,); eps: budget in `norm`; parts: which attacks, in order: QUICK
    leaves out the slow two, which rarely find more; steps: of each gradient attack; queries: of
    Square; batch: how many images at a time; progress(part, standing, N) is called after every
    batch of every part. Images that no attack fools come back unchanged, and so do those that are
    misclassified already.
    """
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise InputError(f"AutoAttack has no part {unknown[0]!r}; its parts: {', '.join(PARTS)}")
    out, standing = images.clone(), torch.zeros(len(images), dtype=torch.bool, device=images.device)
    rows = torch.arange(len(images), device=images.device)
    for some in torch.split(rows, batch):
        standing[some] = model(images[some]).argmax(1) == labels[some]
    for part in parts:
        length = {"queries": queries} if part == "square" else {"steps": steps}
        attack = partial(PARTS[part], eps=eps, norm=norm, generator=generator, **length)
        for some in torch.split(rows[standing], batch):
            found = attack(model, images[some], labels[some])
            right = model(found).argmax(1) == labels[some]
            out[some[~right]], standing[some[~right]] = found[~right], False
            if progress is not None:
                progress(part, int(standing.sum()), len(images))
    return out
