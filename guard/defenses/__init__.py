"""The defences, written once: the same torch modules are served, attacked and calibrated.

A defence is two pure steps around the classifiers. `views` says which variants of the images it
wants classified; `measure` turns the answers into named evidence columns; `score` turns those
columns into one number. `evidence.py` composes the defences into the graph that is exported,
`detector.py` learns from their evidence, `load.py` rebuilds both from a pack.

Everything is float32 and differentiable; steps (rounding, votes) pass gradients straight through
(BPDA, Athalye et al. 2018), so an adaptive attack sees what it needs to see.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

FLOOR = 1e-12  # probabilities below count as this much in a logarithm


@dataclass(frozen=True)
class Answers:
    """What the members said about one batch; all are probabilities, rows sum to 1."""

    original: Tensor  # (N, K) the asked member on the images as received
    views: Tensor  # (V, N, K) the asked member on this defence's views; V is 0 without views
    robust: Tensor  # (M, N, K) the robust members on the images as received
    sentinel: Tensor | None  # (N, K) the sentinel on the images as received

    @property
    def ensemble(self) -> Tensor:
        """The robust ensemble's answer, (N, K): the mean of its members."""
        return self.robust.mean(0)


class Defense(Protocol):
    """One defence. Its file's docstring names the paper and the known limit.

    `ask` is the member that classifies the views: "lead" or "sentinel".
    """

    name: ClassVar[str]
    ask: str

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the evidence it leaves, in order."""
        ...

    def variants(self, copies: int) -> tuple[str, ...]:
        """Names of its V views, in order, given the number of noise copies S per image."""
        ...

    def views(self, images: Tensor, noise: Tensor) -> Tensor | None:
        """The variants to classify, (V, N, C, H, W), of images (N, C, H, W); None for none.

        `noise` is (N, S, C, H, W), standard normal.
        """
        ...

    def measure(self, answers: Answers) -> Tensor:
        """Evidence (N, len(columns)), each row from its own image alone."""
        ...

    def score(self, evidence: Tensor) -> Tensor:
        """One number per image (N,), higher is more suspicious, from its own columns."""
        ...

    def spec(self) -> dict[str, Any]:
        """Everything needed to build it again, as JSON."""
        ...


def straight_through(value: Tensor, like: Tensor) -> Tensor:
    """Exactly `value` forward, the gradient of `like` backward (BPDA)."""
    if torch.compiler.is_exporting():
        return value
    return value.detach() + (like - like.detach())


def log_of(probabilities: Tensor) -> Tensor:
    """Logarithm, never below log FLOOR.

    Not `log(p + FLOOR)`: ONNX Runtime takes adding 1e-12 for adding nothing and drops it.
    """
    return torch.log(probabilities.clamp_min(FLOOR))


def odds_against(probabilities: Tensor, labels: Tensor) -> Tensor:
    """log r_max - log r[label], (N,) >= 0: how sure (N, K) is that `labels` (N,) are wrong."""
    logs = log_of(probabilities)
    return logs.amax(-1) - logs.gather(-1, labels[:, None])[:, 0]


def doubt(*sources: Tensor) -> Tensor:
    """0 for every image whose numbers are all finite, NaN for the others; (N,).

    Inference engines may hide a NaN behind max, relu, softmax or clip. Adding this to a result
    makes sure that it cannot.
    """
    return torch.stack([source.flatten(1).sum(-1) for source in sources]).sum(0) * 0.0
