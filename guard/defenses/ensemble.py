"""Ensemble disagreement: how far apart are the robust members?

The Jensen-Shannon divergence of the members' answers (Lin 1991), used against adversarial inputs
by, among others, Pang et al. 2019 and Strauss et al. 2017.

Known limit: examples made against one net fool the members alike (He et al. 2017: ensembles of
weak defences are not strong), and adversarially trained members disagree on hard clean images too.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from guard.defenses import Answers, log_of


def entropy(probabilities: Tensor) -> Tensor:
    """Shannon entropy in nats over the last axis, (..., K) to (...)."""
    return -(probabilities * log_of(probabilities)).sum(-1)


def jensen_shannon(members: Tensor) -> Tensor:
    """Jensen-Shannon divergence in nats of M distributions, (M, N, K) to (N,)."""
    return entropy(members.mean(0)) - entropy(members).mean(0)


class Disagreement(nn.Module):
    """Columns: `ensemble_divergence`, and how sure the ensemble is of itself:

    `robust_confidence` = log r_max and `robust_margin` = log r_1 - log r_2, r the mean answer.
    """

    name: ClassVar[str] = "ensemble"
    ask: str = "lead"

    @property
    def columns(self) -> tuple[str, ...]:
        """Divergence, confidence, margin."""
        return ("ensemble_divergence", "robust_confidence", "robust_margin")

    def variants(self, copies: int) -> tuple[str, ...]:  # noqa: ARG002
        """No views."""
        return ()

    def views(self, images: Tensor, noise: Tensor) -> None:  # noqa: ARG002
        """None: the members' answers to the original are enough."""
        return

    def measure(self, answers: Answers) -> Tensor:
        """Divergence, confidence and margin, (N, 3)."""
        best = log_of(answers.ensemble).topk(2).values
        divergence = jensen_shannon(answers.robust)
        return torch.stack([divergence, best[:, 0], best[:, 0] - best[:, 1]], dim=-1)

    def score(self, evidence: Tensor) -> Tensor:
        """The divergence."""
        return evidence[:, 0]

    def spec(self) -> dict[str, Any]:
        """The name; there is nothing to choose."""
        return {"name": self.name}
