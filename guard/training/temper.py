"""How much of a lesson a detector keeps: all of it, or as much as costs nothing that it knew.

Between a network and its fine-tuned self the way is smooth: weights in between keep most of what is
new and lose less of what was known (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR
2022). Each head goes as far as the gate's comparison allows. So the hold-out chooses one of a few
steps per head, and is that much less of a stranger to the candidate; no weight is learned from it.
"""

import copy
from collections.abc import Callable, Collection, Mapping

import torch

from guard.defenses.detector import Detector
from guard.evaluation.compared import HEADS

# Of the way. A lesson of which less is harmless is none: then the head stays the parent's.
SHARES = (1.0, 0.85, 0.7, 0.55, 0.4, 0.0)


def temper(
    parent: Detector, child: Detector, worse: Callable[[Detector], Collection[str]]
) -> tuple[Detector, dict[str, float]]:
    """A detector between the two, and by head how far it went.

    worse: which heads of a detector are worse than the parent's. Where not even a part of the
    lesson is harmless to either head, it is the child: the gate shall say why.
    """
    left = {head: list(SHARES) for head in HEADS}
    while True:
        went = {head: shares[0] for head, shares in left.items()}
        between = mixed(parent, child, went)
        bad = [head for head in worse(between) if len(left[head]) > 1]
        if not bad:
            break
        for head in bad:
            left[head].pop(0)
    return (between, went) if any(went.values()) else (child, dict.fromkeys(HEADS, 1.0))


@torch.no_grad()
def mixed(parent: Detector, child: Detector, shares: Mapping[str, float]) -> Detector:
    """The detector whose heads went their share of the way from parent to child."""
    between = copy.deepcopy(child)
    for head, share in shares.items():
        start = dict(getattr(parent, head).named_parameters())
        for name, parameter in getattr(between, head).named_parameters():
            parameter.copy_(torch.lerp(start[name], parameter, share))
    return between.eval().requires_grad_(False)
