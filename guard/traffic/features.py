"""What of a picture is compared with pictures that came before.

Two kinds, because each is blind where the other sees. A *fingerprint* is a set of keyed hashes of
coarse windows: pictures that agree exactly in most places share most of it, whatever happens in the
rest (Li et al.: "Blacklight", USENIX Security 2022). An *embedding* is a small thumbnail: noise all
over the picture averages out in it, a local change may not (Chen, Carlini, Wagner: "Stateful
Detection of Black-Box Adversarial Attacks", 2019, with a learned encoder in its place). A second
embedding is freed of brightness and contrast.

Known limit: an attacker who rejects queries that would match (Feng et al.: "OARS", CCS 2023), or
who transforms every query anew, pays for it in queries, and is not always seen.
Letters: N images, C H W, D numbers of an embedding, P of its projection, S hashes.
"""

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct

Floats = NDArray[np.float32]
Hashes = NDArray[np.uint64]

GRID = 4  # cells of a thumbnail, each way
WINDOW = 20  # pixels of a fingerprint's window
LEVELS = 50 / 255  # a pixel is rounded to a multiple of this
HASHES = 16  # S
PROJECTED = 12  # P
FLAT = 0.02  # a thumbnail with less contrast is not stretched to more


class Seen(NamedTuple):
    """The features of N pictures."""

    exact: Hashes  # (N,): equal for equal pictures
    prints: Hashes  # (N, S), the smallest hashes; missing ones are 0
    pooled: Floats  # (N, D)
    stretched: Floats  # (N, D), without brightness and contrast


class Features:
    """Features of pictures of `shape` (C, H, W), keyed by `secret`."""

    def __init__(self, shape: tuple[int, int, int], secret: bytes) -> None:
        channels, height, width = shape
        self.dimensions = channels * GRID * GRID
        self._rows, self._columns = _pooling(height), _pooling(width)
        sums = np.indices((channels, GRID, GRID)).sum(0).reshape(-1)
        self._order = np.argsort(sums, kind="stable")  # of the frequencies, the lowest first
        seed = hashlib.blake2b(b"guard query features", key=secret[:64], digest_size=32).digest()
        random = np.random.default_rng(list(seed))
        top = np.iinfo(np.uint64).max
        self._factors = random.integers(1, top, WINDOW, np.uint64, endpoint=True) | np.uint64(1)
        self._salt = random.integers(1, top, 3, np.uint64, endpoint=True) | np.uint64(1)
        self._key = seed

    def of(self, images: Floats) -> Seen:
        """Features of images (N, C, H, W) in [0, 1]."""
        pooled = self._pooled(images)
        centred = pooled - pooled.mean(1, keepdims=True)
        spread = np.maximum(centred.std(1, keepdims=True), FLAT)
        stretched = centred / spread / np.sqrt(self.dimensions, dtype=np.float32)
        return Seen(
            self._exact(images),
            np.stack([self._print(image) for image in images]),
            self._frequencies(pooled),
            self._frequencies(stretched),
        )

    def _pooled(self, images: Floats) -> Floats:
        cells = self._rows @ images @ self._columns.T  # (N, C, GRID, GRID)
        flat: Floats = cells.reshape(len(images), -1).astype(np.float32)
        return flat

    def _frequencies(self, flat: Floats) -> Floats:
        """The same vectors (N, D) turned, so that the first numbers say most; distances stay."""
        turned = flat.reshape(len(flat), -1, GRID, GRID)
        for axis in (3, 2, 1):
            turned = dct(turned, axis=axis, norm="ortho")
        found: Floats = turned.reshape(len(flat), -1)[:, self._order].astype(np.float32)
        return found

    def _exact(self, images: Floats) -> Hashes:
        found = [
            hashlib.blake2b(np.ascontiguousarray(image).data, key=self._key, digest_size=8).digest()
            for image in images
        ]
        return np.frombuffer(b"".join(found), np.uint64)

    def _print(self, image: Floats) -> Hashes:
        """The S smallest hashes of the picture's windows, each with its place.

        Windows of one level do not count: dark pictures would all be the same.
        """
        levels = np.round(image.reshape(-1) / np.float32(LEVELS)).astype(np.uint64) + np.uint64(1)
        count = len(levels) - WINDOW + 1
        out = np.zeros(HASHES, np.uint64)
        if count < 1:
            return out
        changes = np.concatenate([[0], np.cumsum(levels[1:] != levels[:-1])])
        lively = changes[WINDOW - 1 :] > changes[:count]
        hashes = np.arange(count, dtype=np.uint64) * self._salt[2]
        for at, factor in enumerate(self._factors):
            hashes += levels[at : at + count] * factor
        hashes = hashes[lively]
        hashes = (hashes ^ (hashes >> np.uint64(31))) * self._salt[0]
        hashes ^= (hashes >> np.uint64(29)) ^ self._salt[1]
        smallest = np.sort(
            np.partition(hashes, HASHES)[:HASHES] if len(hashes) > HASHES else hashes
        )
        out[: len(smallest)] = smallest
        return out


def _pooling(size: int) -> Floats:
    """(GRID, size): row g averages the pixels of cell g, by area where cells do not fit exactly."""
    edges = np.linspace(0, size, GRID + 1)
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(size)[None]
    overlap = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None)
    weights: Floats = (overlap / overlap.sum(1, keepdims=True)).astype(np.float32)
    return weights
