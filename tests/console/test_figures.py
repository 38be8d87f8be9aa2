"""Pictures as PNG, residuals made visible."""

import io

import numpy as np
import pytest
from PIL import Image

from guard.console import figures


def opened(data: bytes) -> np.ndarray:
    """The levels of a PNG."""
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 5, 7), (4, 5, 7)])
def test_a_picture_survives_as_png(shape: tuple[int, int, int]) -> None:
    """Every grey level comes back, in place; of strange channels the first."""
    levels = np.random.default_rng(0).integers(0, 256, shape)
    seen = opened(figures.png((levels / np.float32(255)).astype(np.float32)))
    wanted = levels.transpose(1, 2, 0) if shape[0] == 3 else levels[0]
    assert (seen == wanted).all()


def test_numbers_outside_are_shown_as_the_nearest() -> None:
    """Nothing wraps around, and what is no number is black."""
    image = np.array([[[-1.0, 2.0, np.nan]]], np.float32)
    assert opened(figures.png(image)).tolist() == [[0, 255, 0]]


def test_a_faint_change_is_seen() -> None:
    """Noise of four grey levels fills the scale; what did not change is grey."""
    flat = np.full((3, 8, 8), 0.5, np.float32)
    noise = np.random.default_rng(0).choice((-4, 4), flat.shape).astype(np.float32) / 255
    noise[:, :, :2] = 0
    lost = figures.residual(flat + noise, flat)
    seen = opened(lost.png)
    assert lost.gain == figures.LARGEST_GAIN
    assert lost.largest == pytest.approx(4, abs=0.01)
    assert set(np.unique(seen[:, :2])) == {128}
    assert np.ptp(seen) > 100


def test_a_strong_change_is_not_amplified() -> None:
    """A picture that became another is shown as it is."""
    black, white = np.zeros((1, 4, 4), np.float32), np.ones((1, 4, 4), np.float32)
    assert figures.residual(black, white).gain == 1
    assert figures.residual(black, black).gain == figures.LARGEST_GAIN


def test_the_median_takes_specks_away() -> None:
    """A single bright pixel is gone."""
    image = np.full((3, 5, 5), 0.2, np.float32)
    image[:, 2, 2] = 1
    assert figures.median(image) == pytest.approx(np.full((3, 5, 5), 0.2), abs=1e-3)
