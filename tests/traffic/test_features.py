"""Features of queries: what they keep and what they are blind to."""

import numpy as np
import pytest

from guard.data import signs
from guard.traffic.features import GRID, HASHES, PROJECTED, Features

SHAPE = (3, 32, 32)
SECRET = b"s" * 32


@pytest.fixture(scope="module")
def images() -> np.ndarray:  # type: ignore[type-arg]
    """Procedural signs (8, C, H, W)."""
    return signs.make(8, seed=1, size=32).pixels()


def test_distances_are_those_of_thumbnails(images: np.ndarray) -> None:  # type: ignore[type-arg]
    """Turning a thumbnail into frequencies changes no distance, and pooling is a plain mean."""
    cells = images.reshape(8, 3, GRID, 8, GRID, 8).mean((3, 5)).reshape(8, -1)
    seen = Features(SHAPE, SECRET).of(images)
    ours = np.linalg.norm(seen.pooled[:, None] - seen.pooled[None], axis=-1)
    plain = np.linalg.norm(cells[:, None] - cells[None], axis=-1)
    assert np.allclose(ours, plain, atol=1e-5)


def test_a_projection_never_makes_a_distance_larger(images: np.ndarray) -> None:  # type: ignore[type-arg]
    """The leading numbers alone never say farther than all of them: nothing near can be missed."""
    for embedding in Features(SHAPE, SECRET).of(images)[2:]:
        apart = embedding[:, None] - embedding[None]
        short = np.linalg.norm(apart[..., :PROJECTED], axis=-1)
        assert (short <= np.linalg.norm(apart, axis=-1) + 1e-6).all()
        assert short.mean() > 0.4 * np.linalg.norm(apart, axis=-1).mean()


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 30, 41), (3, 3, 3), (1, 2, 5)])
def test_any_size_has_features(shape: tuple[int, int, int]) -> None:
    """Sizes that the cells do not divide, and pictures smaller than a window or the grid."""
    images = np.random.default_rng(0).random((2, *shape), np.float32)
    seen = Features(shape, SECRET).of(images)
    assert seen.pooled.shape == seen.stretched.shape == (2, shape[0] * GRID * GRID)
    assert np.isfinite(seen.pooled).all()
    assert np.allclose(
        Features(shape, SECRET).of(np.full_like(images, 0.5)).stretched, 0, atol=1e-5
    )


def test_noise_moves_no_thumbnail_and_a_patch_moves_no_fingerprint(
    images: np.ndarray,  # type: ignore[type-arg]
) -> None:
    """Each kind of feature sees the change that the other is blind to."""
    features, random = Features(SHAPE, SECRET), np.random.default_rng(0)
    noisy = np.clip(images + random.choice([-8, 8], images.shape) / 255, 0, 1).astype(np.float32)
    patched = images.copy()
    patched[:, :, 4:10, 4:10] = random.random((8, 3, 6, 6), np.float32)
    seen, noise, patch = (features.of(x) for x in (images, noisy, patched))
    assert (np.linalg.norm(seen.pooled - noise.pooled, axis=1) < 0.06).all()
    assert (np.linalg.norm(seen.pooled - patch.pooled, axis=1) > 0.05).all()
    shared = [np.isin(a, b).sum() for a, b in zip(seen.prints, patch.prints, strict=True)]
    assert min(shared) >= HASHES // 2


def test_brightness_moves_no_stretched_thumbnail(images: np.ndarray) -> None:  # type: ignore[type-arg]
    """A darker copy with less contrast is the same to the second embedding."""
    features = Features(SHAPE, SECRET)
    lively = images[images.reshape(8, 3, 4, 8, 4, 8).mean((3, 5)).reshape(8, -1).std(1) > 0.05]
    assert len(lively) >= 4
    darker = features.of((lively * 0.6 + 0.1).astype(np.float32))
    assert np.allclose(darker.stretched, features.of(lively).stretched, atol=1e-3)


def test_hashes_are_keyed(images: np.ndarray) -> None:  # type: ignore[type-arg]
    """Who does not know the secret cannot tell which hashes a picture has."""
    ours, theirs = (Features(SHAPE, key * 32).of(images) for key in (b"a", b"b"))
    assert not np.isin(ours.prints, theirs.prints).any()
    assert not np.isin(ours.exact, theirs.exact).any()
