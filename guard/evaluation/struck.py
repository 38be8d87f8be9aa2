"""The adaptive rows of the gate: an attacker who knows either detector, tried on both.

Attacks by gradient are luck as well as skill. Every picture is therefore attacked twice, once
through the current detector and once through the candidate's, and both attempts are shown to both
sides: the better of two starts counts (Carlini et al., "On Evaluating Adversarial Robustness",
2019), and the two sides differ by nothing but themselves.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from guard import calibration
from guard.attacks.adaptive import Target, adaptive
from guard.calibration import Calibration
from guard.defenses.load import load_detector, load_evidence
from guard.errors import InputError
from guard.evaluation.compared import Flags
from guard.evaluation.detection import answers, examine
from guard.evaluation.gate import Struck
from guard.evaluation.robustness import accuracy
from guard.pack import Pack
from guard.pipeline import Pipeline
from guard.verdict import Policy

STEPS = 20
BUDGET = 0.05
EPSILONS = (4, 8)  # L-inf, in 1/255
BATCH = 64


def strike_both(
    current: Pack,
    candidate: Pack,
    production: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    own: Mapping[str, Calibration] | None = None,
    epsilons: Sequence[int] = EPSILONS,
    steps: int = STEPS,
    seed: int = 0,
    log: Callable[[str], None] = lambda _line: None,
) -> list[Struck]:
    """Attack both on images (N, C, H, W) in [0, 1] of labels (N,), per posture and eps.

    own: calibrations for the current pack in place of its own. Both are served under one secret,
    which the attacker does not know. Only pictures that the answering model has right are attacked.
    Raises InputError where the pictures are not the packs'.
    """
    if tuple(images.shape[1:]) != current.input_shape:
        raise InputError(f"the pictures are {tuple(images.shape[1:])}, not {current.input_shape}")
    graph = load_evidence(current)
    sides = (_pipeline(current, own or {}), _pipeline(candidate, {}))
    found = []
    for head, victim in (("upstream", production), ("alone", None)):
        right = _right(sides[0], victim, images, labels)
        x, y = images[right], labels[right]
        if not len(x):
            continue
        posture = "production answers" if victim is not None else "ensemble answers"
        for eps in epsilons:
            tries = []
            for side in sides:
                scores = side.calibrations[head].scores[:, -1]
                threshold = float(np.quantile(scores, 1 - BUDGET))
                target = Target(graph, load_detector(side.pack), victim)
                tries.append(_attack(target, x, y, eps / 255, threshold, steps, seed))
            through = [_undetected(side, victim, tries, y) for side in sides]
            one = Struck(f"adaptive PGD {eps}/255, {posture}", head, BUDGET, *through)
            log(f"{one.name}: {through[0].sum()} and {through[1].sum()} of {len(y)} undetected")
            found.append(one)
    return found


def _pipeline(pack: Pack, own: Mapping[str, Calibration]) -> Pipeline:
    entries = calibration.load(pack.files["calibration.npz"]) | dict(own)
    policy = Policy(max_false_positive_rate=BUDGET)
    return Pipeline(pack, policy=policy, calibrations=entries, secret=b"the gate", threads=1)


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
