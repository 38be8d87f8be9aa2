"""Exact and near duplicates: a small perceptual fingerprint, every hit verified on the pixels.

Fingerprint: the picture's grey 8x8 means, centred and scaled to length 1, so that light does not
matter. Pairs whose fingerprints agree are compared at the working size: near duplicates are those
that one factor of contrast and one step of brightness turn into each other, up to RESIDUE. Not
seen: mirrored, shifted or cropped copies. Blocks of GEMM, memory bounded by BLOCK and LIMIT.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

GRID = 8
BLOCK = 4096
CHUNK = 8192  # pairs verified at once
LIMIT = 2_000_000  # pairs kept at most
ALIKE = 0.95  # cosine of two fingerprints above which the pixels are compared
CORRELATION = 0.97  # of the pixels
RESIDUE = 0.035  # root mean square of what light does not explain, of 1; JPEG 75: 0.03
FLAT = 4.0  # standard deviation (of 255) below which a picture says too little to be compared

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Pairs:
    """P pairs of pictures.

    first, second: int64 (P,), indices into the two sets (or into one, first < second)
    likeness:      float32 (P,), correlation of the pixels; 1 for exact duplicates
    full:          whether LIMIT cut the list
    """

    first: Ints
    second: Ints
    likeness: Floats
    full: bool = False

    def __len__(self) -> int:
        return len(self.first)

    def keep(self, mask: NDArray[np.bool_]) -> Pairs:
        """The pairs that the mask (P,) picks."""
        return Pairs(self.first[mask], self.second[mask], self.likeness[mask], self.full)

    def best_per_second(self) -> Pairs:
        """For each second picture the most similar first one."""
        order = np.lexsort((-self.likeness, self.second))
        _, at = np.unique(self.second[order], return_index=True)
        return self.keep_rows(order[at])

    def keep_rows(self, index: Ints) -> Pairs:
        """The pairs at these places."""
        return Pairs(self.first[index], self.second[index], self.likeness[index], self.full)

    def clusters(self, count: int) -> Ints:
        """int64 (count,): pictures of one set linked by pairs have the same number."""
        ones = np.ones(len(self), bool)
        graph = coo_array((ones, (self.first, self.second)), shape=(count, count))
        numbers: Ints = connected_components(graph, directed=False)[1].astype(np.int64)
        return numbers


def same(digests: NDArray[np.uint64], others: NDArray[np.uint64] | None = None) -> Pairs:
    """Pictures with equal digests: each with the first one of its kind, or with the other set's."""
    if others is None:
        _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
        leader = first[inverse.reshape(-1)]
        again = np.flatnonzero(leader != np.arange(len(digests)))
        return Pairs(leader[again].astype(np.int64), again, np.ones(len(again), np.float32))
    known, first = np.unique(digests, return_index=True)
    place = np.searchsorted(known, others).clip(max=len(known) - 1)
    second = np.flatnonzero(known[place] == others)
    return Pairs(first[place[second]], second, np.ones(len(second), np.float32))


def alike(images: Bytes, others: Bytes | None = None) -> Pairs:
    """Near duplicates (exact ones included) within (N, H, W, C), or between it and another set.

    Both sets must have one shape; flat pictures are left out.
    """
    here = fingerprints(images)
    there = here if others is None else fingerprints(others)
    firsts: list[Ints] = []
    seconds: list[Ints] = []
    values: list[Floats] = []
    found, full = 0, False
    for left, right in _candidates(here, there, within=others is None):
        target = images if others is None else others
        likeness = _verify(images, target, left, right)
        near = likeness > 0
        firsts.append(left[near])
        seconds.append(right[near])
        values.append(likeness[near])
        found += int(near.sum())
        if found > LIMIT:
            full = True
            break
    if not firsts:
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    return Pairs(np.concatenate(firsts), np.concatenate(seconds), np.concatenate(values), full)


def fingerprints(images: Bytes) -> Floats:
    """(N, 64), each of length 1; zero for flat pictures, which then resemble nothing."""
    count, height, width = images.shape[:3]
    down, right = _means(height), _means(width)
    out = np.empty((count, GRID * GRID), np.float32)
    for start in range(0, count, BLOCK):
        grey = images[start : start + BLOCK].mean(3, dtype=np.float32)
        small = (down @ grey @ right.T).reshape(len(grey), -1)
        small -= small.mean(1, keepdims=True)
        length = np.linalg.norm(small, axis=1, keepdims=True)
        textured = grey.std((1, 2))[:, None] > FLAT
        out[start : start + BLOCK] = np.where(textured, small / np.maximum(length, 1e-6), 0)
    return out


def _means(side: int) -> Floats:
    """(GRID, side): the weights that average `side` values into GRID cells."""
    edges = np.linspace(0, side, GRID + 1)
    pixel = np.arange(side)
    low = np.maximum(edges[:-1, None], pixel[None, :])
    high = np.minimum(edges[1:, None], pixel[None, :] + 1)
    weight = np.clip(high - low, 0, None)
    rows: Floats = (weight / weight.sum(1, keepdims=True)).astype(np.float32)
    return rows


def _candidates(here: Floats, there: Floats, *, within: bool) -> Iterator[tuple[Ints, Ints]]:
    """Pairs whose fingerprints agree, CHUNK at most at a time."""
    for i in range(0, len(here), BLOCK):
        for j in range(i if within else 0, len(there), BLOCK):
            cosine = here[i : i + BLOCK] @ there[j : j + BLOCK].T
            left, right = np.divmod(np.flatnonzero(cosine > ALIKE), cosine.shape[1])
            left, right = left + i, right + j
            if within:
                ahead = left < right
                left, right = left[ahead], right[ahead]
            for start in range(0, len(left), CHUNK):
                yield left[start : start + CHUNK], right[start : start + CHUNK]


def _verify(images: Bytes, others: Bytes, left: Ints, right: Ints) -> Floats:
    """Correlation of the pixels (P,) where the pair is a near duplicate, else 0."""
    x = images[left].reshape(len(left), -1).astype(np.float32)
    y = others[right].reshape(len(right), -1).astype(np.float32)
    x -= x.mean(1, keepdims=True)
    y -= y.mean(1, keepdims=True)
    xx, yy = np.einsum("pd,pd->p", x, x), np.einsum("pd,pd->p", y, y)
    correlation = np.einsum("pd,pd->p", x, y) / np.sqrt(np.maximum(xx * yy, 1e-6))
    # of the brighter one, so that two dark pictures are not alike for being dark
    residue = np.sqrt(np.maximum(xx, yy) * np.maximum(0, 1 - correlation**2) / x.shape[1]) / 255
    near = (correlation >= CORRELATION) & (residue <= RESIDUE)
    values: Floats = np.where(near, np.minimum(correlation, 1), 0).astype(np.float32)
    return values
