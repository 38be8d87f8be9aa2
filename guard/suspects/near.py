"""Codes by which pictures that look alike are found, without the picture.

A picture is mean-pooled to a small thumbnail and its contrast taken out; each code is a keyed hash
of the signs of some secret random projections of it (Charikar 2002). Pictures at a small angle
share most codes, others hardly one. Without the key a code says nothing but "equal".

Limit: a picture that is moved, turned or mirrored is another picture.
"""

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from guard.suspects.crypt import KeyRing
from guard.suspects.record import Floats

CODES = 12
BITS = 14  # signs in a code: more tell more apart, and find less that is alike
SIDE = 8  # of the thumbnail


def near_codes(ring: KeyRing, image: Floats) -> tuple[int, ...]:
    """The codes of an image (C, H, W), each 63 bits."""
    thumbnail = _thumbnail(image)
    seed = ring.hash("projection", len(thumbnail).to_bytes(4, "big"))
    signs = _projections(seed, len(thumbnail)) @ thumbnail >= 0
    groups = np.packbits(signs.reshape(CODES, BITS), axis=1)
    hashes = (ring.hash("near", bytes([n]), group.tobytes()) for n, group in enumerate(groups))
    return tuple(int.from_bytes(one[:8], "big") >> 1 for one in hashes)


def _thumbnail(image: Floats) -> NDArray[np.float64]:
    """(C * side * side,), mean 0, length 1; all 0 for a picture of one colour."""
    pooled = _pool(_pool(image.astype(np.float64), 1), 2).ravel()
    pooled -= pooled.mean()
    return pooled / max(float(np.linalg.norm(pooled)), 1e-12)


def _pool(image: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """The mean of each of up to `SIDE` equal parts along an axis."""
    size = image.shape[axis]
    edges = np.linspace(0, size, min(size, SIDE) + 1).round().astype(np.intp)
    sums: NDArray[np.float64] = np.add.reduceat(image, edges[:-1], axis)
    shape = [1, 1, 1]
    shape[axis] = -1
    return sums / np.diff(edges).reshape(shape)


@lru_cache(maxsize=8)
def _projections(seed: bytes, size: int) -> NDArray[np.float64]:
    """(CODES * BITS, size) of -1 and 1. From SHAKE-256: the same with every version of numpy."""
    rows = CODES * BITS
    stream = hashlib.shake_256(seed).digest((rows * size + 7) // 8)
    bits = np.unpackbits(np.frombuffer(stream, np.uint8))[: rows * size]
    return bits.reshape(rows, size).astype(np.float64) * 2 - 1
