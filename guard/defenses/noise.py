"""Consistency under noise: does the prediction survive small random changes?

Cohen, Rosenfeld, Kolter: "Certified Adversarial Robustness via Randomized Smoothing", ICML 2019;
Roth, Kilcher, Hofmann: "The Odds are Odd", ICML 2019. The noise is an input of the graph, drawn
per image from a secret, so that nobody can average it away by asking again.

Known limit: broken by attacks that average over noise (EOT, Athalye et al. 2018; Hosseini et al.
2019), and nearly blind on adversarially trained members. With few copies it certifies nothing.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from guard.defenses import Answers, straight_through


class NoiseConsistency(nn.Module):
    """S copies with Gaussian noise of standard deviation `sigma` (in pixels of [0, 1]).

    Columns: `noise_flips`, the share of copies whose class changes, and `noise_drop`, the mean
    loss of probability of the class given to the original.
    """

    name: ClassVar[str] = "noise"

    def __init__(self, sigma: float = 0.06, *, ask: str = "sentinel") -> None:
        super().__init__()
        self.sigma, self.ask = sigma, ask

    @property
    def columns(self) -> tuple[str, ...]:
        """Flips and drop."""
        return ("noise_flips", "noise_drop")

    def variants(self, copies: int) -> tuple[str, ...]:
        """One view per noise copy."""
        return tuple(f"noise_{number}" for number in range(1, copies + 1))

    def views(self, images: Tensor, noise: Tensor) -> Tensor:
        """Noisy copies clipped to [0, 1], (S, N, C, H, W), from standard normal noise."""
        return (images + self.sigma * noise.transpose(0, 1)).clamp(0.0, 1.0)

    def measure(self, answers: Answers) -> Tensor:
        """Flips and drop, (N, 2)."""
        labels = answers.original.argmax(-1)
        before = answers.original.gather(-1, labels[:, None])[:, 0]
        index = labels[None, :, None].expand(answers.views.shape[0], -1, 1)
        after = answers.views.gather(-1, index)[..., 0]
        changed = (answers.views.argmax(-1) != labels).to(after.dtype)
        flips = straight_through(changed, 1.0 - after).mean(0)
        return torch.stack([flips, before - after.mean(0)], dim=-1)

    def score(self, evidence: Tensor) -> Tensor:
        """Flips, ties broken by the drop."""
        return evidence.sum(-1)

    def spec(self) -> dict[str, Any]:
        """Name, asked member, sigma."""
        return {"name": self.name, "ask": self.ask, "sigma": self.sigma}
