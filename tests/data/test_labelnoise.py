"""Confident learning: by hand, and against the authors' own code where it is installed."""

import numpy as np
import pytest

from guard.data.labelnoise import confident_learning


def drawn(N: int, K: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that know the truth fairly well, and labels of which some are wrong."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, K, N)
    logits = rng.normal(0, 1, (N, K)) + 3 * np.eye(K)[truth]
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.where(rng.random(N) < 0.1, rng.integers(0, K, N), truth)
    return shares.astype(np.float32), labels.astype(np.int64)


def test_by_hand() -> None:
    """Thresholds 0.65 and 0.6: the second picture is confidently of the other class."""
    shares = np.array([[0.9, 0.1], [0.2, 0.8], [0.85, 0.15], [0.4, 0.6]], np.float32)
    found = confident_learning(shares, np.array([0, 0, 0, 1]))
    assert found.joint.tolist() == [[2, 1], [0, 1]]
    assert found.off.tolist() == [False, True, False, False]
    assert found.suggested.tolist() == [0, 1, 0, 1]
    assert np.allclose(found.margin, [0.8, -0.6, 0.7, 0.2])


def test_an_absent_class_is_nobodys_label() -> None:
    """A class without pictures has no threshold and is never suggested."""
    shares = np.array([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1]], np.float32)
    found = confident_learning(shares, np.array([0, 0, 1]))
    assert not (found.suggested == 2).any()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_agrees_with_cleanlab(seed: int) -> None:
    """The confident joint and the pictures off its diagonal are those of cleanlab."""
    count = pytest.importorskip("cleanlab.count", reason="cleanlab is not installed")
    shares, labels = drawn(600, 5, seed)
    joint, off = count.compute_confident_joint(
        labels, shares, calibrate=False, return_indices_of_off_diagonals=True
    )
    found = confident_learning(shares, labels)
    assert np.array_equal(
        found.joint - np.diag(np.diag(found.joint)), joint - np.diag(np.diag(joint))
    )
    assert set(np.flatnonzero(found.off)) == set(off)
