"""The adaptive rows of the gate: an attacker who knows either detector, tried on both.

Attacks by gradient are luck as well as skill. Every picture is therefore attacked twice, once
through the current detector and once through the candidate's, and both attempts are shown to both
sides: the better of two starts counts (Carlini et al., "On Evaluating Adversarial Robustness",
2019), and the two sides differ by nothing but themselves.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from guard.attacks.adaptive import Target, adaptive
from guard.defenses.load import load_detector, load_evidence
from guard.evaluation.compared import Flags
from guard.evaluation.detection import answers, examine
from guard.evaluation.gate import Struck
from guard.evaluation.robustness import accuracy
from guard.pipeline import Pipeline

STEPS = 30
BUDGET = 0.05
EPSILONS = (4, 8)  # L-inf, in 1/255
BATCH = 64


def strike_both(
    current: Pipeline,
    candidate: Pipeline,
    production: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilons: Sequence[int] = EPSILONS,
    steps: int = STEPS,
    seed: int = 0,
    log: Callable[[str], None] = lambda _line: None,
) -> list[Struck]:
    """Attack both on images (N, C, H, W) in [0, 1] of labels (N,), per posture and eps.

    Both pipelines serve one graph under one secret, which the attacker does not know. Only
    pictures that the answering model has right are attacked.
    """
    graph = load_evidence(current.pack)
    found = []
    for head, victim in (("upstream", production), ("alone", None)):
        right = _right(current, victim, images, labels)
        x, y = images[right], labels[right]
        posture = "production answers" if victim is not None else "ensemble answers"
        for eps in epsilons:
            tries = []
            for side in (current, candidate):
                scores = side.calibrations[head].scores[:, -1]
                threshold = float(np.quantile(scores, 1 - BUDGET))
                target = Target(graph, load_detector(side.pack), victim)
                tries.append(_attack(target, x, y, eps / 255, threshold, steps, seed))
            sides = [_undetected(side, victim, tries, y) for side in (current, candidate)]
            one = Struck(f"adaptive PGD {eps}/255, {posture}", head, BUDGET, sides[0], sides[1])
            log(f"{one.name}: {int(sides[0].sum())} and {int(sides[1].sum())} of {len(y)} through")
            found.append(one)
    return found


def _attack(
    target: Target, x: Tensor, y: Tensor, eps: float, threshold: float, steps: int, seed: int
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    parts = zip(torch.split(x, BATCH), torch.split(y, BATCH), strict=True)
    return torch.cat([
        adaptive(target, part, truth, eps=eps, threshold=threshold, steps=steps, weights=(1.0,),
                 generator=generator)
        for part, truth in parts
    ])  # fmt: skip


def _undetected(
    side: Pipeline, victim: nn.Module | None, tries: Sequence[Tensor], labels: Tensor
) -> Flags:
    """(N,): wrong and without alarm in any of the tries."""
    through = np.zeros(len(labels), bool)
    for images in tries:
        answer = None if victim is None else answers(victim, images)
        seen = examine(side, images, answer)
        given = seen.labels if answer is None else answer.argmax(1)
        through |= (given != labels.numpy()) & (seen.p_values > BUDGET)
    return through


def _right(pipeline: Pipeline, victim: nn.Module | None, images: Tensor, labels: Tensor) -> Tensor:
    if victim is not None:
        return accuracy(victim, images, labels)
    return torch.from_numpy(examine(pipeline, images, None).labels) == labels
