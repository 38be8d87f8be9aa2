"""The sentinel: a standard-trained member that ordinary attacks fool.

Where it and the robust members part, someone aimed at a model like the production one. The score
is the log-odds the robust ensemble gives against the sentinel's label, not a symmetric distance:
minimal-norm attacks leave the fooled model unsure, and divergences miss them (our measurement).
Disagreement of differently robust models as a signal: Xu et al. 2018, Tramer 2022.

Known limit: attacks that do not transfer to the sentinel leave no trace here, and attacks that
know it simply do not fool it.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from guard.defenses import Answers, log_of, odds_against


class Sentinel(nn.Module):
    """Columns: `sentinel_odds` = log r_max - log r[sentinel's label], and the sentinel's own

    `sentinel_confidence` = log s_max.
    """

    name: ClassVar[str] = "sentinel"
    ask: str = "sentinel"

    @property
    def columns(self) -> tuple[str, ...]:
        """Odds and confidence."""
        return ("sentinel_odds", "sentinel_confidence")

    def variants(self, copies: int) -> tuple[str, ...]:  # noqa: ARG002
        """No views."""
        return ()

    def views(self, images: Tensor, noise: Tensor) -> None:  # noqa: ARG002
        """None: the answers to the original are enough."""
        return

    def measure(self, answers: Answers) -> Tensor:
        """Odds and confidence, (N, 2)."""
        if answers.sentinel is None:
            raise ValueError("the sentinel defence needs a member with the role sentinel")
        odds = odds_against(answers.ensemble, answers.sentinel.argmax(-1))
        return torch.stack([odds, log_of(answers.sentinel.amax(-1))], dim=-1)

    def score(self, evidence: Tensor) -> Tensor:
        """The odds."""
        return evidence[:, 0]

    def spec(self) -> dict[str, Any]:
        """The name; there is nothing to choose."""
        return {"name": self.name}
