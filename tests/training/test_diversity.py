"""The measures of diversity against the formulas of their papers."""

import math

import pytest
import torch
from torch import Tensor

from guard.training.diversity import (
    OFFSET,
    adp,
    apart,
    averaged,
    cosines,
    ensemble_entropy,
    gal,
    log_volume,
    slopes,
)
from tests.training.toys import NATURAL, colours


def random(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_mean_answer_is_the_mean_of_probabilities() -> None:
    """The ensemble answers with the average of its members' softmax outputs."""
    logits = random(3, 4, 5)
    assert torch.allclose(averaged(logits).exp(), logits.softmax(-1).mean(0), atol=1e-6)


def test_the_entropy_is_that_of_the_mean_answer() -> None:
    """Equal chances for K classes are log K, and a sure ensemble is 0."""
    assert torch.allclose(ensemble_entropy(torch.zeros(3, 2, 7)), torch.tensor(math.log(7)))
    mean = random(2, 6, 5).softmax(-1).mean(0)
    assert torch.allclose(ensemble_entropy(random(2, 6, 5)), -(mean * mean.log()).sum(1), atol=1e-6)


def test_orthogonal_second_guesses_have_volume_one() -> None:
    """Members whose wrong answers share no class have log det 0, whatever the right class gets."""
    logits = torch.full((3, 2, 5), -60.0)
    logits[:, :, 0] = 5.0  # the right class
    for member in range(3):
        logits[member, :, 1 + member] = 0.0
    assert log_volume(logits, torch.zeros(2, dtype=torch.long)).abs().max() < 1e-4


@pytest.mark.parametrize("members", [2, 3, 5])
def test_members_alike_have_next_to_no_volume(members: int) -> None:
    """Equal answers end at the authors' offset: log (M offset^(M-1)), far down but finite."""
    logits = random(1, 4, 9).expand(members, -1, -1)
    found = log_volume(logits, torch.arange(4))
    wanted = math.log(members + OFFSET) + (members - 1) * math.log(OFFSET)
    assert torch.allclose(found, torch.tensor(wanted), rtol=1e-3)


def test_the_volume_is_that_of_the_papers_determinant() -> None:
    """det(M^T M) of the normalised predictions without the label's entry (Pang et al. 2019)."""
    logits, labels = random(3, 6, 8), torch.arange(6)
    for image, label in enumerate(labels.tolist()):
        chances = logits[:, image].double().softmax(-1)
        rest = torch.cat([chances[:, :label], chances[:, label + 1 :]], 1)
        unit = (rest / rest.norm(dim=1, keepdim=True)).T  # (K-1, M)
        wanted = torch.linalg.det(unit.T @ unit + OFFSET * torch.eye(3)).log()
        assert log_volume(logits, labels)[image] == pytest.approx(float(wanted), abs=1e-4)


def test_adp_adds_both_with_their_weights() -> None:
    """Alpha times the entropy and beta times the log volume."""
    logits, labels = random(3, 4, 6), torch.tensor([0, 5, 2, 2])
    wanted = 2 * ensemble_entropy(logits) + 0.5 * log_volume(logits, labels)
    assert torch.allclose(adp(logits, labels), wanted)
    assert torch.allclose(adp(logits, labels, alpha=0, beta=1), log_volume(logits, labels))


def test_the_volume_can_be_climbed_where_members_agree() -> None:
    """Its gradient is finite for nearly equal answers, and a step along it raises it."""
    logits = (random(1, 4, 6) + 0.01 * random(3, 4, 6, seed=1)).requires_grad_(True)
    labels = torch.zeros(4, dtype=torch.long)
    (slope,) = torch.autograd.grad(log_volume(logits, labels).sum(), logits)
    assert slope.isfinite().all()
    moved = logits + 1e-3 * slope / slope.norm()
    assert log_volume(moved, labels).sum() > log_volume(logits, labels).sum()


def test_gal_is_the_log_of_summed_exponentials() -> None:
    """log sum exp(cos) over the pairs (Kariyappa & Qureshi 2019), for directions that are known."""
    along, across = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    along[0, 0, 0, 0], across[0, 1, 1, 1] = 3.0, 0.5
    gradients = torch.stack([along, across, -along])
    assert cosines(gradients).flatten().tolist() == pytest.approx([0.0, -1.0, 0.0])
    assert gal(gradients).item() == pytest.approx(math.log(2 + math.exp(-1)))
    assert gal(torch.stack([along, 7 * along])).item() == pytest.approx(1.0)


def test_slopes_are_the_members_own() -> None:
    """Each member's gradient is of its own loss, and can be differentiated again when asked."""
    images = random(2, 1, 2, 2).requires_grad_(True)
    found = slopes([(images**2).flatten(1).sum(1), images.flatten(1).sum(1)], images)
    assert torch.equal(found[0], 2 * images.detach())
    assert torch.equal(found[1], torch.ones_like(images))
    assert slopes([(images**3).sum()], images, create_graph=True).requires_grad


def test_a_network_is_not_apart_from_itself() -> None:
    """Twins have cosine 1 and next to no volume; another seed is further away."""
    twin, other = NATURAL.network(3).eval(), NATURAL.network(3).eval()
    torch.nn.init.normal_(other.head.weight, generator=torch.Generator().manual_seed(3))
    alike, apart_ = (apart([twin, one], colours(20, 1)) for one in (twin, other))
    assert alike["cosine"] == pytest.approx(1.0, abs=1e-4)
    assert alike["log_volume"] < -12
    assert apart_["cosine"] < 0.9
    assert apart_["log_volume"] > alike["log_volume"]
