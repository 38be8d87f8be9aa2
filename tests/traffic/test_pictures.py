"""The numbers of a picture: each follows the change it is named after."""

import io

import numpy as np
import pytest
from PIL import Image

from guard.data import signs
from guard.traffic.pictures import NUMBERS, numbers

IMAGES = signs.make(60, seed=2, size=32).pixels()


def medians(images: np.ndarray) -> dict[str, float]:  # type: ignore[type-arg]
    """The middle of every number."""
    found = np.median(numbers(images.astype(np.float32)), axis=0)
    return dict(zip(NUMBERS, found.tolist(), strict=True))


def test_the_dark_changes_brightness_and_contrast_not_sharpness() -> None:
    """Half the light is half of both, and as sharp."""
    day, night = medians(IMAGES), medians(IMAGES / 2)
    assert night["brightness"] == pytest.approx(day["brightness"] / 2, rel=0.01)
    assert night["contrast"] == pytest.approx(day["contrast"] / 2, rel=0.01)
    assert night["sharpness"] == pytest.approx(day["sharpness"], abs=0.02)


def test_a_blur_changes_sharpness() -> None:
    """Neighbours that are averaged differ less."""
    blurred = (IMAGES + np.roll(IMAGES, 1, 3) + np.roll(IMAGES, -1, 3)) / 3
    assert medians(blurred)["sharpness"] < medians(IMAGES)["sharpness"] - 0.2


def test_a_colder_light_changes_the_tint() -> None:
    """More blue than red is a smaller number."""
    cold = IMAGES * np.array([0.8, 1, 1.1], np.float32)[:, None, None]
    assert medians(cold)["tint"] < medians(IMAGES)["tint"]


def test_a_jpeg_shows_its_blocks() -> None:
    """Re-encoded pictures bend where blocks of eight meet; an attack makes no such line."""
    files = [io.BytesIO() for _ in IMAGES]
    for image, file in zip(IMAGES, files, strict=True):
        pixels = (image.transpose(1, 2, 0) * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(file, "JPEG", quality=40)
    coded = np.stack([np.array(Image.open(file)) for file in files]).transpose(0, 3, 1, 2) / 255
    noise = 8 / 255 * np.random.default_rng(0).choice([-1, 1], IMAGES.shape)
    clean, noisy = medians(IMAGES)["blocks"], medians(IMAGES + noise)["blocks"]
    assert medians(coded)["blocks"] > clean + 0.2
    assert noisy < clean + 0.1


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 1, 1), (4, 300, 200)])
def test_pictures_of_any_shape_have_finite_numbers(shape: tuple[int, ...]) -> None:
    """One channel, one pixel, hundreds of rows; flat pictures too."""
    images = np.random.default_rng(0).random((3, *shape)).astype(np.float32)
    assert np.isfinite(numbers(images)).all()
    assert np.isfinite(numbers(np.zeros_like(images))).all()
    assert numbers(images).shape == (3, len(NUMBERS))
