"""Feature squeezing: views, score, specification."""

import numpy as np
import pytest
import torch

from guard.defenses import Answers
from guard.defenses.squeezing import SQUEEZERS, Squeezing, reduce_bits

NOISE = torch.zeros(2, 0, 3, 16, 16)


@pytest.mark.parametrize("bits", [1, 3, 5, 7])
def test_bits_equal_numpy(bits: int) -> None:
    """Bit depth is numpy's rounding to 2**bits levels, bit for bit."""
    images = np.random.default_rng(bits).random((2, 3, 8, 8), dtype=np.float32)
    levels = np.float32(2**bits - 1)
    ours = reduce_bits(torch.from_numpy(images), bits=bits).numpy()
    assert np.array_equal(ours, np.round(images * levels) / levels)


def test_bits_pass_the_gradient() -> None:
    """Rounding has the gradient of the identity."""
    images = torch.rand(1, 3, 4, 4, requires_grad=True)
    reduce_bits(images, bits=3).sum().backward()
    assert images.grad is not None
    assert torch.equal(images.grad, torch.ones_like(images))


@pytest.mark.parametrize("name", SQUEEZERS)
def test_every_squeezer_keeps_shape_and_range(name: str) -> None:
    """Any squeezer on its own gives one view per image, in [0, 1], with a gradient."""
    images = torch.rand(2, 3, 16, 16, requires_grad=True)
    views = Squeezing([{"name": name}]).views(images, NOISE)
    assert views.shape == (1, 2, 3, 16, 16)
    assert 0 <= views.min() <= views.max() <= 1 + 1e-6
    views.square().sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_score_is_the_largest_distance() -> None:
    """Columns are L1 distances of probabilities, the score is their maximum."""
    original = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    views = torch.tensor([[[0.5, 0.5], [0.0, 1.0]], [[0.75, 0.25], [1.0, 0.0]]])
    squeezing = Squeezing([{"name": "bits"}, {"name": "median2"}])
    evidence = squeezing.measure(Answers(original, views, original[None], None))
    assert evidence.tolist() == [[0.0, 0.5], [2.0, 0.0]]
    assert squeezing.score(evidence).tolist() == [0.5, 2.0]
    assert squeezing.columns == ("squeeze_bits", "squeeze_median2")


def test_unknown_squeezer_is_named() -> None:
    """The message says which squeezer does not exist and which do."""
    with pytest.raises(ValueError, match=r"'blur'.*median3"):
        Squeezing([{"name": "blur"}])
