"""Secret noise keyed by the image."""

import numpy as np
import pytest
from scipy import stats

from guard.noise import NoiseBank, fingerprint

SHAPE = (2, 3, 8, 8)


def images(count: int, seed: int = 0) -> np.ndarray:
    """Random pictures."""
    return np.random.default_rng(seed).random((count, 3, 8, 8), np.float32)


def test_the_same_image_gets_the_same_noise() -> None:
    """Resubmitting a picture, alone or among others, is no new draw."""
    bank, pictures = NoiseBank(b"secret", SHAPE), images(5)
    alone = bank.windows(bank.index(pictures[3:4]))
    among = bank.windows(bank.index(pictures))[3:4]
    assert np.array_equal(alone, among)


def test_another_secret_is_other_noise() -> None:
    """Without the secret neither the window nor its content can be known."""
    pictures = images(4)
    first, second = NoiseBank(b"one", SHAPE), NoiseBank(b"two", SHAPE)
    assert not np.array_equal(first.index(pictures), second.index(pictures))
    assert not np.array_equal(first.windows(np.array([7])), second.windows(np.array([7])))


def test_one_changed_bit_is_another_window() -> None:
    """The smallest change of a pixel gives unrelated noise."""
    bank, pictures = NoiseBank(b"secret", SHAPE), images(1)
    nudged = pictures.copy()
    nudged[0, 0, 0, 0] = np.nextafter(nudged[0, 0, 0, 0], 1)
    assert bank.index(pictures)[0] != bank.index(nudged)[0]


def test_noise_is_standard_normal() -> None:
    """The bank passes a Kolmogorov-Smirnov test against the normal law."""
    noise = NoiseBank(b"secret", SHAPE).windows(np.arange(0, 60000, 500))
    assert noise.shape == (120, *SHAPE)
    assert stats.kstest(noise.ravel()[::7], "norm").pvalue > 0.001


def test_windows_are_spread_evenly() -> None:
    """The keyed hash uses all windows alike."""
    index = NoiseBank(b"secret", SHAPE, draws=16).index(images(1600))
    assert stats.chisquare(np.bincount(index, minlength=16)).pvalue > 0.001


def test_an_empty_secret_is_refused() -> None:
    """A gateway without a secret must not pretend to have one."""
    with pytest.raises(ValueError, match="empty"):
        NoiseBank(b"", SHAPE)


def test_the_fingerprint_tells_secrets_apart_without_showing_them() -> None:
    """Two gateways can compare secrets by a short digest."""
    assert fingerprint(b"a") == fingerprint(b"a") != fingerprint(b"b")
    assert b"a".hex() != fingerprint(b"a")
