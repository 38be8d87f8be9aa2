"""The adaptive column: an attacker who differentiates through the served defence.

Crafted on the torch graph rebuilt from the pack, judged by the served pipeline with its own
secret noise, which the attacker does not know.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from guard.attacks.adaptive import Target
from guard.attacks.adaptive import adaptive as attack
from guard.defenses.load import load_detector, load_evidence
from guard.evaluation.detection import answers, examine
from guard.evaluation.robustness import accuracy
from guard.pipeline import Pipeline

STEPS = 50
WEIGHTS = (1.0,)


def adaptive(
    pipeline: Pipeline,
    production: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilons: tuple[int, ...] = (4, 8),
    budget: float = 0.05,
    seed: int = 0,
    log: Callable[[str], None] = lambda _line: None,
) -> dict[str, dict[str, float]]:
    """Per posture and eps (L-inf, in 1/255): shares fooled, flagged of these, and undetected.

    Only images (N, C, H, W) that the answering model has right are attacked: STEPS steps, one
    restart for each of WEIGHTS. `undetected` is the share of attacked images with a wrong answer
    and no alarm at `budget`.
    """
    graph, detector = load_evidence(pipeline.pack), load_detector(pipeline.pack)
    table = {}
    for posture, victim in (("production answers", production), ("ensemble answers", None)):
        key = "alone" if victim is None else "upstream"
        scores = pipeline.calibrations[key].scores[:, -1]
        threshold = float(np.quantile(scores, 1 - budget))
        target = Target(graph, detector, victim)
        right = _right(pipeline, victim, images, labels)
        x, y = images[right], labels[right]
        for eps in epsilons:
            generator = torch.Generator().manual_seed(seed)
            found = torch.cat(
                [
                    attack(target, part, truth, eps=eps / 255, threshold=threshold, steps=STEPS,
                           weights=WEIGHTS, generator=generator)
                    for part, truth in zip(torch.split(x, 64), torch.split(y, 64), strict=True)
                ]
            )  # fmt: skip
            row = _row(pipeline, victim, found, y, budget)
            table[f"adaptive PGD {eps}/255, {posture}"] = row
            log(
                f"adaptive {eps}/255, {posture}: "
                + ", ".join(f"{k} {v:.3g}" for k, v in row.items())
            )
    return table


def _right(pipeline: Pipeline, victim: nn.Module | None, images: Tensor, labels: Tensor) -> Tensor:
    if victim is not None:
        return accuracy(victim, images, labels)
    return torch.from_numpy(examine(pipeline, images, None).labels) == labels


def _row(
    pipeline: Pipeline, victim: nn.Module | None, found: Tensor, labels: Tensor, budget: float
) -> dict[str, float]:
    answer = None if victim is None else answers(victim, found)
    seen = examine(pipeline, found, answer)
    given = seen.labels if answer is None else answer.argmax(1)
    wrong = given != labels.numpy()
    flagged = ~(seen.p_values > budget)
    count = max(len(labels), 1)
    return {
        "images": len(labels),
        "fooled": float(wrong.sum() / count),
        "flagged": float((wrong & flagged).sum() / max(int(wrong.sum()), 1)),
        "undetected": float((wrong & ~flagged).sum() / count),
    }
