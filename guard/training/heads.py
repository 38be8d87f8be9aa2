"""Both heads of a detector in one lesson: weighted rows, and what each head gets wrong of them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from guard.defenses.detector import Detector


@dataclass(frozen=True)
class Batch:
    """Rows to learn from."""

    features: Tensor  # (R, F)
    wanted: Tensor  # (R, 2), what each head should say: 0 benign to 1 suspicious
    sees: Tensor  # (R,), 0 where there was no upstream's answer: the head `alone` learns alone
    weight: Tensor  # (R,), adds up to 1: how often it is drawn
    boost: Tensor  # (R, 2), by head: how much it counts where it is drawn

    def __getitem__(self, chosen: Tensor) -> "Batch":
        parts = self.features, self.wanted, self.sees, self.weight, self.boost
        return Batch(*(part[chosen] for part in parts))


class Heads(nn.Module):
    """Both heads of a detector as one module: features (R, F) to two scores (R, 2)."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.alone, self.upstream = detector.alone, detector.upstream

    def forward(self, features: Tensor) -> Tensor:
        """What each head says."""
        return torch.stack([self.alone(features[:, :-1]), self.upstream(features)], dim=1)


def losses(scores: Tensor, rows: Batch) -> Tensor:
    """Each row's loss (R,), from both heads' scores (R, 2)."""
    loss = F.binary_cross_entropy_with_logits(scores, rows.wanted, reduction="none") * rows.boost
    return loss[:, 0] + loss[:, 1] * rows.sees
