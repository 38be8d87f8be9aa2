"""What training lowers, against torch's own functions and the papers' formulas."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from guard.training.losses import (
    cross_entropy,
    divergence,
    feature_distance,
    margin,
    mart,
    shares,
    smooth,
    trades,
)

seeds = st.integers(0, 10_000)


def answers(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits under attack and on clean pictures (6, 4), labels (6,)."""
    generator = torch.Generator().manual_seed(seed)
    attacked, clean = torch.randn(2, 6, 4, generator=generator) * 3
    return attacked, clean, torch.randint(4, (6,), generator=generator)


@given(seeds, st.floats(0, 0.9))
def test_cross_entropy_is_torchs(seed: int, smoothing: float) -> None:
    """With labels as shares and with smoothed ones, per picture."""
    logits, _, labels = answers(seed)
    ours = cross_entropy(logits, smooth(shares(labels, 4), smoothing))
    theirs = F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    assert torch.allclose(ours, theirs, atol=1e-5)


@given(seeds)
def test_divergence_is_torchs(seed: int) -> None:
    """Kullback-Leibler from the clean answer, never negative, zero for the same answer."""
    attacked, clean, _ = answers(seed)
    theirs = F.kl_div(attacked.log_softmax(1), clean.softmax(1), reduction="none").sum(1)
    assert torch.allclose(divergence(attacked, clean), theirs, atol=1e-5)
    assert (divergence(attacked, clean) >= -1e-6).all()
    assert divergence(clean, clean + 7).abs().max() < 1e-5


@given(seeds)
def test_trades_is_the_papers(seed: int) -> None:
    """Equation 5 of Zhang et al.: natural cross-entropy plus beta times the divergence."""
    attacked, clean, labels = answers(seed)
    natural = F.cross_entropy(clean, labels)
    robust = F.kl_div(attacked.log_softmax(1), clean.softmax(1), reduction="batchmean")
    ours = trades(attacked, clean, shares(labels, 4), beta=6.0).mean()
    assert torch.allclose(ours, natural + 6 * robust, atol=1e-4)


@given(seeds)
def test_mart_is_the_papers(seed: int) -> None:
    """Equations 7 to 9 of Wang et al.: boosted cross-entropy, divergence where clean is unsure."""
    attacked, clean, labels = answers(seed)
    attacked = attacked / 3  # where the paper's second logarithm needs no floor
    p, q = attacked.double().softmax(1), clean.double().softmax(1)
    rows = []
    for i, y in enumerate(labels.tolist()):
        rival = max(float(p[i, k]) for k in range(4) if k != y)
        boosted = -p[i, y].log() - torch.log(torch.tensor(1 - rival))
        kl = sum(q[i, k] * (q[i, k] / p[i, k]).log() for k in range(4))
        rows.append(boosted + 5.0 * kl * (1 - q[i, y]))
    ours = mart(attacked, clean, shares(labels, 4), beta=5.0)
    assert torch.allclose(ours.double(), torch.stack(rows), rtol=1e-4, atol=1e-4)


@given(seeds)
def test_margin_is_positive_where_the_answer_is_wrong(seed: int) -> None:
    """Its sign is the verdict, its size the gap between the two logits."""
    logits, _, labels = answers(seed)
    gap = margin(logits, shares(labels, 4))
    assert torch.equal(gap > 0, logits.argmax(1) != labels)
    two = logits.topk(2, 1).values
    right = logits.argmax(1) == labels
    assert torch.allclose(gap[right], (two[:, 1] - two[:, 0])[right])


def test_feature_distance_is_a_mean_square() -> None:
    """Per picture, as torch's mse_loss says."""
    first, second = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    theirs = F.mse_loss(first, second, reduction="none").mean(1)
    assert torch.allclose(feature_distance(first, second), theirs)
