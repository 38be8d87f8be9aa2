"""How strong the training examples are, step by step.

"warm" climbs to the budget and stays. "literal" is the rule this project started from,
eps <- eps + alpha (L_adv - L_clean): the adversarial loss is the larger one, so it climbs to the
clamp. "steered" holds the gap of the two losses at a target instead: eps rises while the examples
are too easy and falls when they are too hard.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["warm", "literal", "steered"]


@dataclass
class Epsilon:
    """The strength in use, in pixels of [0, 1] (L-inf) or Euclidean length (L2).

    kind: see above; budget: where "warm" ends; warm: the share of training it takes; start, alpha,
    low, high: first value, step and clamps of the adaptive kinds; gap: wanted L_adv - L_clean.
    """

    kind: Kind
    budget: float
    warm: float = 0.3
    start: float = 0.05
    alpha: float = 0.001
    low: float = 0.01
    high: float = 0.06
    gap: float = 0.5
    value: float = -1.0  # of the adaptive kinds, as it stands

    def __post_init__(self) -> None:
        if self.value < 0:
            self.value = self.start

    def at(self, progress: float) -> float:
        """The strength when `progress` (0 to 1) of the training is done."""
        if self.kind == "warm":
            return self.budget * min(1.0, progress / max(self.warm, 1e-9))
        return self.value

    def learn(self, attacked: float, clean: float) -> None:
        """Take in the two mean losses of a step."""
        if self.kind == "warm":
            return
        gap = attacked - clean
        change = gap if self.kind == "literal" else self.gap - gap
        self.value = min(max(self.value + self.alpha * change, self.low), self.high)
