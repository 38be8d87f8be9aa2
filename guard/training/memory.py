"""What a detector must not forget: kinds of old rows, replayed the more the more of them it loses.

Every few steps each kind's share of flagged rows is compared with the parent's, at thresholds that
its own clean rows set; kinds that got worse weigh more from then on, as in boosting (Freund &
Schapire 1997). Letters: R old rows, G kinds, H heads, B budgets.
"""

import numpy as np
import torch
from torch import Tensor

from guard.rows import Rows
from guard.training.heads import Heads

BUDGETS = (0.05, 0.01)
EVERY = 10  # steps
GAIN, HEAVIEST = 2.0, 20.0
FEWEST = 50  # rows of a kind: of fewer a share says little


class Memory:
    """Weights of old rows for each head; all 1 where there are no clean rows to set thresholds."""

    def __init__(self, heads: Heads, old: Rows) -> None:
        self.features, self.kind = torch.from_numpy(old.features), torch.from_numpy(old.kind).long()
        numbers = [n for n in np.unique(old.kind) if (old.kind == n).sum() >= FEWEST]
        self.members = [self.kind == int(n) for n in numbers]
        attack = [bool(old.suspicious[old.kind == n].mean() > 0.5) for n in numbers]
        self.sign = torch.tensor([1.0 if one else -1.0 for one in attack])  # (G,)
        clean = old.kinds.index("clean") if "clean" in old.kinds else -1
        self.clean = self.kind == clean
        self.useful = int(self.clean.sum()) >= FEWEST
        self.before = self.shares(heads)
        self.boost = torch.ones(2, len(numbers))  # (H, G)

    @torch.no_grad()
    def shares(self, heads: Heads) -> Tensor:
        """(B, H, G), the share of each kind that each head flags at each budget."""
        if not self.useful:
            return torch.zeros(len(BUDGETS), 2, len(self.members))
        scores = heads(self.features)
        cuts = [scores[self.clean].quantile(1 - budget, dim=0) for budget in BUDGETS]
        flags = torch.stack([(scores > cut).float() for cut in cuts])
        return torch.stack([flags[:, rows].mean(1) for rows in self.members], 2)

    def weights(self, heads: Heads) -> Tensor:
        """(R, H), after one more look at what got lost since the parent."""
        lost = ((self.before - self.shares(heads)) * self.sign).clamp_min(0).amax(0)
        self.boost = (self.boost * torch.exp(GAIN * lost)).clamp(max=HEAVIEST)
        found = torch.ones(len(self.kind), 2)
        for number, rows in enumerate(self.members):
            found[rows] = self.boost[:, number]
        return found
