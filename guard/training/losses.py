"""What training lowers: cross-entropy, TRADES, MART, distances of features, slopes that disagree.

TRADES: Zhang et al., ICML 2019. MART: Wang et al., ICLR 2020. GradAlign: Andriushchenko &
Flammarion, NeurIPS 2020. Classes are shares (N, K), so that
mixed pictures and smoothed labels need no case of their own.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

Objective = Literal["ce", "trades", "mart"]


def shares(labels: Tensor, classes: int) -> Tensor:
    """Labels (N,) as class shares (N, K)."""
    return F.one_hot(labels, classes).float()


def smooth(soft: Tensor, smoothing: float) -> Tensor:
    """Class shares (N, K) with `smoothing` of their mass spread over all classes."""
    return soft * (1 - smoothing) + smoothing / soft.shape[1]


def cross_entropy(logits: Tensor, soft: Tensor) -> Tensor:
    """(N,): cross-entropy of logits (N, K) against class shares (N, K), in single precision."""
    return -(soft * logits.float().log_softmax(1)).sum(1)


def divergence(logits: Tensor, reference: Tensor) -> Tensor:
    """(N,): Kullback-Leibler divergence of the answer from the reference answer, both logits."""
    log_of, other = logits.float().log_softmax(1), reference.float().log_softmax(1)
    return (other.exp() * (other - log_of)).sum(1)


def trades(attacked: Tensor, clean: Tensor, soft: Tensor, *, beta: float) -> Tensor:
    """(N,): cross-entropy on the clean picture and beta times the divergence under attack."""
    return cross_entropy(clean, soft) + beta * divergence(attacked, clean)


def mart(attacked: Tensor, clean: Tensor, soft: Tensor, *, beta: float) -> Tensor:
    """(N,): boosted cross-entropy under attack, divergence weighted by how unsure clean is."""
    hard = soft.argmax(1, keepdim=True)
    chance = attacked.float().softmax(1)
    rival = chance.scatter(1, hard, 0).amax(1)
    boosted = cross_entropy(attacked, soft) - torch.log1p(-rival.clamp_max(1 - 1e-6))
    sure = clean.float().softmax(1).gather(1, hard).squeeze(1)
    return boosted + beta * divergence(attacked, clean) * (1 - sure)


def margin(logits: Tensor, soft: Tensor) -> Tensor:
    """(N,): best wrong logit minus the right one (Carlini & Wagner 2017)."""
    hard = soft.argmax(1, keepdim=True)
    wrong = logits.float().scatter(1, hard, -torch.inf).amax(1)
    return wrong - logits.float().gather(1, hard).squeeze(1)


def feature_distance(attacked: Tensor, clean: Tensor) -> Tensor:
    """(N,): mean squared distance between features (N, F) of a picture and its attacked twin."""
    return (attacked.float() - clean.float()).square().mean(1)


def misalignment(
    model: Callable[[Tensor], Tensor], images: Tensor, nearby: Tensor, soft: Tensor
) -> Tensor:
    """(N,): one minus the cosine between the loss's slopes at a picture and at a point nearby.

    Where they disagree a single step misses the worst point of the ball: what collapses
    single-step training. Differentiable in the model's parameters (a second derivative).
    """

    def slope(at: Tensor) -> Tensor:
        at = at.detach().requires_grad_(True)
        loss = cross_entropy(model(at), soft).sum()
        return torch.autograd.grad(loss, at, create_graph=True)[0].flatten(1)

    return 1 - F.cosine_similarity(slope(images), slope(nearby), dim=1, eps=1e-12)
