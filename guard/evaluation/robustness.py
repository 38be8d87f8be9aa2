"""Robust accuracy of classifiers under white-box attacks on the classifier alone."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from guard.attacks import round8
from guard.attacks.fgsm import fgsm
from guard.attacks.pgd import pgd
from guard.errors import InputError

Log = Callable[[str], None]
STEPS = 20


class Averaged(nn.Module):
    """Members answering together: the mean of their probabilities, as logits (its logarithm)."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if not members:
            raise InputError("an ensemble needs at least one member")
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] to log-probabilities (N, K)."""
        stacked = torch.stack([member(images).log_softmax(-1) for member in self.members])
        return torch.logsumexp(stacked, 0) - torch.log(torch.tensor(float(len(self.members))))


def robustness(
    models: Mapping[str, nn.Module],
    images: Tensor,
    labels: Tensor,
    *,
    epsilons: Sequence[int] = (4, 8),
    seed: int = 0,
    log: Log = lambda _line: None,
) -> dict[str, dict[str, float]]:
    """Accuracy of every model on images (N, C, H, W): clean, FGSM, and PGD-20 with two losses.

    epsilons are L-inf in 1/255. PGD: 20 steps of eps/8, one random start; "margin" is the
    worst of cross-entropy and margin loss per image. Attacked images are rounded to 8 bits.
    """
    return {
        name: _one(name, model.eval(), images, labels, epsilons, seed, log)
        for name, model in models.items()
    }


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Which images (N,) are classified right."""
    with torch.no_grad():
        return torch.cat([model(x).argmax(1) for x in torch.split(images, 256)]) == labels


def _one(
    name: str,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    epsilons: Sequence[int],
    seed: int,
    log: Log,
) -> dict[str, float]:
    right = accuracy(model, images, labels)
    row = {"clean": float(right.float().mean())}
    for eps in epsilons:
        step = partial(fgsm, model, eps=eps / 255)
        row[f"FGSM {eps}/255"] = _share(right & _stands(model, step, images, labels))
        generator = torch.Generator().manual_seed(seed)
        climb = partial(
            pgd, model, eps=eps / 255, steps=STEPS, step=eps / 255 / 8, generator=generator
        )
        ordinary = right & _stands(model, partial(climb, loss="ce"), images, labels)
        worst = ordinary & _stands(model, partial(climb, loss="margin"), images, labels)
        row[f"PGD-20 {eps}/255"] = _share(ordinary)
        row[f"PGD-20 margin {eps}/255"] = _share(worst)
    log(f"{name}: {_percent(row)}")
    return row


def _stands(
    model: nn.Module, attack: Callable[..., Tensor], images: Tensor, labels: Tensor
) -> Tensor:
    """Which images (N,) are still classified right after the attack and rounding to 8 bits."""
    pairs = zip(torch.split(images, 128), torch.split(labels, 128), strict=True)
    attacked = torch.cat([attack(images=x, labels=y) for x, y in pairs])
    return accuracy(model, round8(attacked), labels)


def _share(right: Tensor) -> float:
    return float(right.float().mean())


def _percent(row: Mapping[str, float]) -> str:
    return ", ".join(f"{key} {100 * value:.1f}%" for key, value in row.items())
