"""How different the members of an ensemble are, as numbers that training can raise or lower.

ADP: Pang, Xu, Du, Chen & Zhu, "Improving Adversarial Robustness via Promoting Ensemble Diversity",
ICML 2019. GAL: Kariyappa & Qureshi, "Improving Adversarial Robustness of Ensembles with Diversity
Training", 2019. Known limit: without adversarial training both only hinder transfer, and fall to
an attack on the whole ensemble (Tramer et al. 2020).

Letters: M members, N images, K classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from guard.training.losses import cross_entropy, shares
from guard.training.pictures import Pictures

OFFSET = 1e-6  # on the diagonal, as the authors have it: members alike give a finite number
TINY = 1e-12


def averaged(logits: Tensor) -> Tensor:
    """Members' logits (M, N, K) to the logarithm of their mean probabilities (N, K)."""
    return torch.logsumexp(logits.float().log_softmax(-1), 0) - torch.tensor(len(logits)).log()


def ensemble_entropy(logits: Tensor) -> Tensor:
    """(N,): Shannon entropy, in nats, of the mean answer of members' logits (M, N, K)."""
    logs = averaged(logits)
    return -(logs.exp() * logs).sum(-1)


def log_volume(logits: Tensor, labels: Tensor) -> Tensor:
    """(N,): log det of the Gram matrix of the members' answers to all classes but the right one.

    logits (M, N, K), labels (N,). Each answer is scaled to length 1, so it is 0 when the members'
    second guesses are orthogonal and falls without end as they become alike. In double precision:
    in single, answers alike give a negative determinant.
    """
    kept = torch.ones_like(logits, dtype=torch.bool).scatter(
        2, labels.expand(len(logits), -1)[..., None], False
    )
    members, count, classes = logits.shape
    wrong = logits[kept].view(members, count, classes - 1).double()
    # Dividing by a sum or not, the direction is the same: only the wrong classes take part.
    unit = torch.nn.functional.normalize(wrong.softmax(-1), dim=-1, eps=TINY).transpose(0, 1)
    gram = unit @ unit.transpose(1, 2)  # (N, M, M)
    gram = gram + OFFSET * torch.eye(members, dtype=gram.dtype, device=gram.device)
    found: Tensor = torch.linalg.slogdet(gram).logabsdet
    return found.float()


def adp(logits: Tensor, labels: Tensor, *, alpha: float = 2.0, beta: float = 0.5) -> Tensor:
    """(N,): alpha entropy + beta log volume of logits (M, N, K): what ADP adds, to be raised."""
    return alpha * ensemble_entropy(logits) + beta * log_volume(logits, labels)


def cosines(gradients: Tensor) -> Tensor:
    """Cosines (P, N) of every pair of members' input gradients (M, N, C, H, W)."""
    flat = torch.nn.functional.normalize(gradients.float().flatten(2), dim=-1, eps=TINY)
    first, second = torch.triu_indices(len(gradients), len(gradients), 1, device=gradients.device)
    return (flat[first] * flat[second]).sum(-1)


def gal(gradients: Tensor) -> Tensor:
    """(N,): log of the summed exponentials of the pairs' cosines: what GAL adds, to be lowered."""
    return torch.logsumexp(cosines(gradients), 0)


def slopes(losses: Sequence[Tensor], images: Tensor, *, create_graph: bool = False) -> Tensor:
    """Each member's gradient of its losses (N,) at the images, (M, N, C, H, W)."""
    found = [
        torch.autograd.grad(loss.sum(), images, retain_graph=True, create_graph=create_graph)[0]
        for loss in losses
    ]
    return torch.stack(found)


def apart(
    networks: Sequence[nn.Module], pictures: Pictures, *, count: int = 200
) -> dict[str, float]:
    """How different networks are on a sample of pictures: means of the papers' three measures.

    entropy of the mean answer, log_volume of the answers but the right one, and cosine of the
    input gradients of every pair of networks.
    """
    images, labels = pictures.sample(count)
    soft = shares(labels, int(networks[0](images[:1]).shape[1]))
    images.requires_grad_(True)
    with torch.enable_grad():
        logits = torch.stack([network.eval()(images) for network in networks])
        gradients = slopes([cross_entropy(one, soft) for one in logits], images)
    found = {
        "entropy": ensemble_entropy(logits),
        "log_volume": log_volume(logits, labels),
        "cosine": cosines(gradients),
    }
    return {name: float(value.detach().mean()) for name, value in found.items()}
