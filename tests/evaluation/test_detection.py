"""Counting who is flagged."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import Tensor

from guard.evaluation.corruptions import CORRUPTIONS, REPORTED, corrupt, gaussian_blur, jpeg
from guard.evaluation.detection import attack_production, auroc, interval
from guard.evaluation.robustness import Averaged, robustness

numbers = st.lists(st.integers(0, 5), min_size=1, max_size=30)


class Brightest(torch.nn.Module):
    """Names the brightest channel."""

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to logits (N, 3)."""
        return images.mean((2, 3)) * 10


def grey(count: int) -> tuple[Tensor, Tensor]:
    """Pictures whose class is their brightest channel, by a little."""
    labels = torch.arange(count) % 3
    images = torch.full((count, 3, 8, 8), 0.5)
    images[torch.arange(count), labels] += 0.06
    return images, labels


@given(numbers, numbers)
def test_auroc_is_scikit_learns(positive: list[int], negative: list[int]) -> None:
    """Area under the curve with ties counted half, against an independent implementation."""
    ours = auroc(np.array(positive, np.float32), np.array(negative, np.float32))
    truth = [1] * len(positive) + [0] * len(negative)
    assert ours == pytest.approx(roc_auc_score(truth, positive + negative))


def test_auroc_without_attacks_is_no_number() -> None:
    """Nothing to compare is NaN, not 0 or 1."""
    assert np.isnan(auroc(np.array([], np.float32), np.array([1.0], np.float32)))


def test_intervals_cover() -> None:
    """The Clopper-Pearson interval holds its share, and is wide open without pictures."""
    low, high = interval(5, 100)
    assert 0.016 < low < 0.05 < high < 0.114
    assert interval(0, 0) == (0.0, 1.0)


def test_only_attacks_that_work_count() -> None:
    """Kept are 8-bit pictures that fool a model which had the original right; labels go along."""
    images, labels = grey(9)
    labels[0] = (labels[0] + 1) % 3  # one picture the model has wrong

    def shift(_net: object, x: Tensor, y: Tensor, _g: object) -> Tensor:
        moved = x.clone()
        moved[torch.arange(len(x)), y] -= 0.2 * (y == 1).float()[:, None, None]
        return moved

    fooled = attack_production(Brightest(), shift, images, labels, torch.Generator())
    assert fooled.tried == 8
    assert set(fooled.labels.tolist()) == {1}
    assert torch.allclose(fooled.images * 255, (fooled.images * 255).round())


def test_robustness_falls_with_eps_and_with_better_attacks() -> None:
    """Accuracy falls as eps grows, and the margin column is the worst."""
    images, labels = grey(12)
    row = robustness({"net": Brightest()}, images, labels, epsilons=(2, 16))["net"]
    assert row["clean"] == 1.0
    assert row["PGD-20 2/255"] == 1.0
    assert row["PGD-20 16/255"] == row["PGD-20 margin 16/255"] == 0.0


def test_the_ensemble_is_the_mean_of_its_members() -> None:
    """Averaged probabilities, as their logarithm."""
    images, _ = grey(5)
    one, two = Brightest(), torch.nn.Sequential(Brightest(), torch.nn.Linear(3, 3))
    expected = (one(images).softmax(1) + two(images).softmax(1)) / 2
    assert torch.allclose(Averaged([one, two])(images).exp(), expected, atol=1e-6)


@pytest.mark.parametrize("name", [*CORRUPTIONS, *REPORTED])
def test_corrupted_pictures_are_pictures(name: str) -> None:
    """Every corruption keeps shape and range, for grey pictures too, and changes something."""
    for channels in (1, 3):
        images = torch.rand(3, channels, 16, 16, generator=torch.Generator().manual_seed(0))
        generator = torch.Generator().manual_seed(1)
        if name in CORRUPTIONS:
            worse = corrupt(name, images, generator=generator)
        else:
            worse = REPORTED[name](images, generator)
        assert worse.shape == images.shape
        assert 0 <= worse.min() <= worse.max() <= 1
        assert not torch.equal(worse, images)


def test_blur_keeps_the_mean_and_jpeg_keeps_flat_pictures() -> None:
    """A blurred picture is no brighter; a flat one survives JPEG within a grey level."""
    flat = torch.full((1, 3, 16, 16), 0.4)
    assert torch.allclose(gaussian_blur(flat, 1.0), flat, atol=1e-6)
    assert (jpeg(flat, 50) - flat).abs().max() < 1.5 / 255
