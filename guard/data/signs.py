"""Procedural traffic signs: a seeded, unlimited image set that needs no download.

Every picture is a pure function of (seed, index): sets of different seeds share no picture, and a
longer set starts with the shorter one. Flat faces (`faces.py`) get a pose, a background, light,
dirt, blur and sensor noise; `difficulty` scales all of these together. Labels are balanced: each
run of K consecutive pictures holds every class once, in random order.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from guard.data.faces import FACES, face
from guard.data.imageset import ImageSet
from guard.errors import InputError

CLASSES: tuple[str, ...] = tuple(FACES)

Pixels = NDArray[np.floating[Any]]  # (3, H, W) in [0, 1], float32
Rng = np.random.Generator

# Scenery: sky, overcast, foliage, dry grass, brick, concrete, asphalt, dusk.
_SCENES = np.array(
    [
        [0.45, 0.65, 0.88],
        [0.78, 0.80, 0.82],
        [0.22, 0.38, 0.16],
        [0.58, 0.52, 0.32],
        [0.52, 0.31, 0.25],
        [0.60, 0.58, 0.55],
        [0.32, 0.32, 0.34],
        [0.24, 0.22, 0.32],
    ],
    np.float32,
)
_LABELS = 1  # set apart the streams drawn from one seed
_PIXELS = 2


def make(count: int, *, seed: int, size: int = 32, difficulty: float = 1.0) -> ImageSet:
    """Draw the pictures 0 to count - 1 of the set `seed`.

    size: height and width in pixels, at least 8. difficulty: 0 is a frontal, evenly lit sign;
    1 the ordinary set; above 1 harder. InputError for negative numbers.
    """
    if count < 0 or seed < 0 or size < 8 or not 0 <= difficulty < math.inf:
        raise InputError(
            f"count {count}, seed {seed} and difficulty {difficulty} must not be negative, "
            f"size {size} not below 8"
        )
    labels = np.array([label(seed, index) for index in range(count)], np.int64)
    images = np.empty((count, size, size, 3), np.uint8)
    for index in range(count):
        rng = np.random.default_rng([_PIXELS, seed, index])
        images[index] = _draw(CLASSES[labels[index]], rng, size, difficulty)
    return ImageSet(images, labels, CLASSES)


def label(seed: int, index: int) -> int:
    """The class of one picture."""
    return int(_order(seed, index // len(CLASSES))[index % len(CLASSES)])


@lru_cache(64)
def _order(seed: int, block: int) -> tuple[int, ...]:
    order = np.random.default_rng([_LABELS, seed, block]).permutation(len(CLASSES))
    return tuple(order.tolist())


def _draw(name: str, rng: Rng, size: int, difficulty: float) -> NDArray[np.uint8]:
    """One picture, uint8 (size, size, 3)."""
    x, y, picture = _background(rng, size, difficulty)
    sign, alpha = _pose(face(name, 2 * size), rng, size, (x, y), difficulty)
    picture = picture * (1 - alpha) + _fade(sign, alpha, rng, difficulty)
    picture = _occlude(picture, rng, difficulty)
    picture = _light(picture, rng, difficulty)
    picture = _blur(picture, rng, difficulty)
    picture += _normal(rng, picture.shape) * np.float32(difficulty * 0.02 * rng.random() ** 2)
    whole = np.clip(picture, 0, 1) * np.float32(255) + np.float32(0.5)
    return whole.astype(np.uint8).transpose(1, 2, 0)


def _background(rng: Rng, size: int, difficulty: float) -> tuple[float, float, Pixels]:
    """Where the sign's middle goes (fractions of the picture), and what is behind it."""
    x, y = 0.5 + difficulty * rng.uniform(-0.07, 0.07, 2)
    upper, lower = _SCENES[rng.integers(len(_SCENES), size=2)][:, :, None, None]
    upper, lower = (c * np.float32(rng.uniform(0.75, 1.25)) for c in (upper, lower))
    _, down = _grid(size)
    horizon = np.float32(rng.uniform(-0.8, 0.8))
    share = np.clip((down - horizon) * np.float32(rng.uniform(1, 8)) + 0.5, 0, 1)
    picture = upper * (1 - share) + lower * share
    for cells in (4, 11):  # coarse and fine texture, mostly grey
        rough = _normal(rng, (1, cells, cells)) + 0.35 * _normal(rng, (3, cells, cells))
        spread = _spread(size, cells)
        strength = np.float32(difficulty * rng.uniform(0.02, 0.11))
        picture = picture + (spread @ rough @ spread.T) * strength
    if rng.random() < 0.6:
        left, half = round(x * size), max(1, size // 24)
        picture[:, round(y * size) :, left - half : left + half] = rng.uniform(0.35, 0.65)
    return float(x), float(y), picture


def _pose(
    sign: Image.Image, rng: Rng, size: int, middle: tuple[float, float], difficulty: float
) -> tuple[Pixels, Pixels]:
    """The face seen at an angle: colours times alpha (3, H, W) and alpha (1, H, W)."""
    turn = difficulty * rng.normal(0, math.radians(6))
    scale = 0.42 * (1 + difficulty * rng.uniform(-0.22, 0.08))
    narrow = 1 - difficulty * 0.22 * rng.random() ** 2
    shear = difficulty * rng.uniform(-0.1, 0.1)
    tilt = difficulty * rng.uniform(-0.14, 0.14, 2)
    cos, sin = math.cos(turn), math.sin(turn)
    flat = np.array([[narrow * cos, shear - sin], [narrow * sin, cos]]) * scale
    forward = np.eye(3)
    forward[:2, :2] = flat + np.outer(middle, tilt)
    forward[:2, 2] = middle
    forward[2, :2] = tilt
    # from pixels of the double-size picture back to pixels of the face
    wide = 2 * size
    pixels = np.diag([sign.width / 2, sign.width / 2, 1.0])
    pixels[:2, 2] = sign.width / 2
    back = pixels @ np.linalg.inv(np.diag([wide, wide, 1.0]) @ forward)
    back /= back[2, 2]
    seen = sign.transform(
        (wide, wide),
        Image.Transform.PERSPECTIVE,
        back.ravel()[:8].tolist(),
        Image.Resampling.BILINEAR,
    )
    array = np.asarray(seen, dtype=np.float32)
    half = array[0::2] + array[1::2]
    small = ((half[:, 0::2] + half[:, 1::2]) / np.float32(4 * 255)).transpose(2, 0, 1)
    return small[:3], small[3:]


def _fade(sign: Pixels, alpha: Pixels, rng: Rng, difficulty: float) -> Pixels:
    """Paint that bleached in the sun: a step towards one greyish tone."""
    share = np.float32(min(difficulty * 0.35 * rng.random() ** 2, 0.9))
    tone = rng.uniform(0.45, 0.75, (3, 1, 1)).astype(np.float32)
    return sign * (1 - share) + tone * share * alpha


def _occlude(picture: Pixels, rng: Rng, difficulty: float) -> Pixels:
    """Now and then a twig, a sticker or a post in front: a soft-edged bar."""
    if rng.random() >= 0.22 * difficulty:
        return picture
    right, down = _grid(picture.shape[-1])
    turn = rng.uniform(0, math.pi)
    x, y = rng.uniform(-0.8, 0.8, 2)
    width, length = rng.uniform(0.04, 0.17), rng.uniform(0.15, 0.9)
    along = (right - x) * math.cos(turn) + (down - y) * math.sin(turn)
    across = (down - y) * math.cos(turn) - (right - x) * math.sin(turn)
    sharp = picture.shape[-1] / 2
    inside = np.minimum(width - np.abs(across), length - np.abs(along)) * sharp + 0.5
    mask = np.clip(inside, 0, 1).astype(np.float32)
    color = _SCENES[rng.integers(len(_SCENES)), :, None, None] * np.float32(rng.uniform(0.4, 1.2))
    covered: Pixels = picture * (1 - mask) + color * mask
    return covered


def _light(picture: Pixels, rng: Rng, difficulty: float) -> Pixels:
    """Exposure, contrast, colour cast, a slanting gradient and, now and then, a shadow's edge."""
    right, down = _grid(picture.shape[-1])
    turn = rng.uniform(0, 2 * math.pi)
    slope = right * np.float32(math.cos(turn)) + down * np.float32(math.sin(turn))
    field: Pixels = 1 + slope * np.float32(difficulty * rng.uniform(0, 0.3))
    if rng.random() < 0.25 * difficulty:
        edge = np.clip((slope - rng.uniform(-0.6, 0.6)) * 8 + 0.5, 0, 1)
        field = field * (1 - np.float32(rng.uniform(0.25, 0.55)) * edge)
    exposure = math.exp(difficulty * rng.triangular(-1.3, -0.3, 0.25))
    cast = (exposure * (1 + difficulty * rng.normal(0, 0.05, (3, 1, 1)))).astype(np.float32)
    contrast = np.float32(math.exp(difficulty * rng.uniform(-0.8, 0.15)))
    middle = np.float32(0.45)
    picture = ((picture - middle) * contrast + middle) * field.astype(np.float32)
    return picture * cast


def _blur(picture: Pixels, rng: Rng, difficulty: float) -> Pixels:
    """Defocus and motion along one axis: a separable Gaussian, up to about a pixel."""
    size = picture.shape[-1]
    focus = rng.random() ** 2
    down, right = (round(8 * difficulty * min(1.2, focus + m)) for m in 0.35 * rng.random(2) ** 2)
    soft: Pixels = _gauss(size, down) @ picture @ _gauss(size, right).T
    return soft


def _normal(rng: Rng, shape: tuple[int, ...]) -> Pixels:
    return rng.standard_normal(shape, dtype=np.float32)


@cache
def _grid(size: int) -> tuple[Pixels, Pixels]:
    """Coordinates of the pixels' middles from -1 to 1: right (1, W) and down (H, 1)."""
    line = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1).astype(np.float32)
    return line[None, :], line[:, None]


@cache
def _spread(size: int, cells: int) -> Pixels:
    """(size, cells): linear interpolation from `cells` values to `size`."""
    at = (np.arange(size) + 0.5) / size * (cells - 1)
    weight = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(cells)[None, :]))
    linear: Pixels = weight.astype(np.float32)
    return linear


@cache
def _gauss(size: int, eighths: int) -> Pixels:
    """(size, size): blur with a sigma of so many eighths of a pixel (of a 32-pixel picture)."""
    sigma = max(eighths, 1) / 8 * size / 32
    apart = np.arange(size)[:, None] - np.arange(size)[None, :]
    weight = np.exp(-0.5 * (apart / sigma) ** 2)
    kernel: Pixels = (weight / weight.sum(1, keepdims=True)).astype(np.float32)
    return kernel
