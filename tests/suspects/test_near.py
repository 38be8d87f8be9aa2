"""Codes of pictures that look alike: what they find, what they tell."""

import numpy as np
import pytest

from guard.data import signs
from guard.suspects import crypt, near
from guard.suspects.index import ALIKE
from guard.suspects.record import Floats
from tests.suspects.samples import picture

RING = crypt.KeyRing(bytes(range(32)), crypt.new_ring().keys)


def shared(one: Floats, other: Floats) -> int:
    """Codes that two pictures share."""
    return len(set(near.near_codes(RING, one)) & set(near.near_codes(RING, other)))


def test_codes_are_eight_positive_numbers_and_always_the_same() -> None:
    """They fit a signed 64-bit column, and do not change from one start to the next."""
    codes = near.near_codes(RING, picture(1))
    assert len(set(codes)) == near.CODES
    assert all(0 <= code < 1 << 63 for code in codes)
    assert codes == near.near_codes(RING, picture(1).copy())


def test_signs_under_attack_stay_alike_and_others_do_not() -> None:
    """Procedural signs: noise of 8/255 keeps the three codes that count; other signs do not."""
    images = signs.make(100, seed=3).pixels()
    rng = np.random.default_rng(0)
    noisy = [
        np.clip(image + rng.choice([-8 / 255, 8 / 255], image.shape), 0, 1).astype(np.float32)
        for image in images
    ]
    alike = [shared(one, other) for one, other in zip(images, noisy, strict=True)]
    assert np.mean(np.array(alike) >= ALIKE) >= 0.95
    apart = [shared(images[i], images[j]) for i in range(100) for j in range(i)]
    assert np.mean(np.array(apart) >= ALIKE) < 0.001


def test_brightness_and_contrast_do_not_matter() -> None:
    """A darker, flatter copy has the same codes."""
    one = picture(4, (3, 32, 32))
    assert shared(one, 0.2 + one * np.float32(0.5)) == near.CODES


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 50), (3, 7, 9), (4, 33, 31), (3, 224, 224)])
def test_every_shape_has_codes(shape: tuple[int, int, int]) -> None:
    """Small, odd, narrow; a picture of one colour, too."""
    assert len(near.near_codes(RING, picture(1, shape))) == near.CODES
    assert len(near.near_codes(RING, np.zeros(shape, np.float32))) == near.CODES


def test_without_the_key_codes_say_nothing() -> None:
    """Another key's codes of the same picture are all different."""
    other = crypt.new_ring()
    assert not set(near.near_codes(RING, picture(1))) & set(near.near_codes(other, picture(1)))
