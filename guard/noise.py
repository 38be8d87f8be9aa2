"""Secret noise, keyed by the image.

The same image gets the same noise, so resubmitting it gives the same verdict instead of another
draw and an attacker cannot average the noise away; without the secret it cannot be predicted.
"""

import hashlib
import hmac

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class NoiseBank:
    """Standard normal noise (S, C, H, W) for every image, drawn from one secret stretch of numbers.

    An image's window into the stretch starts at HMAC-SHA256(secret, pixels) modulo `draws`, so the
    bank costs draws + S*C*H*W floats however many windows it offers.
    """

    def __init__(self, secret: bytes, shape: tuple[int, ...], *, draws: int = 65536) -> None:
        if not secret:
            raise ValueError("the noise secret is empty")
        self.shape, self.draws = shape, draws
        self._secret = secret
        self._size = int(np.prod(shape))
        seed = int.from_bytes(hmac.digest(secret, b"guard noise bank", "sha256"), "little")
        stretch = np.random.default_rng(seed).standard_normal(draws + self._size, np.float32)
        self._stretch: Floats = stretch

    def index(self, images: Floats) -> NDArray[np.int64]:
        """Where each image's window starts: (N,) in [0, draws)."""
        keys = (
            hmac.digest(self._secret, np.ascontiguousarray(image).data, "sha256")
            for image in images
        )
        starts = (int.from_bytes(key[:8], "little") % self.draws for key in keys)
        return np.fromiter(starts, np.int64, len(images))

    def windows(self, index: NDArray[np.int64]) -> Floats:
        """The noise (N, S, C, H, W) that belongs to the windows `index` (N,)."""
        out = np.empty((len(index), self._size), np.float32)
        for row, start in enumerate(index):
            out[row] = self._stretch[start : start + self._size]
        return out.reshape(len(index), *self.shape)


def fingerprint(secret: bytes) -> str:
    """A short public name of a secret, to tell whether two gateways share it."""
    return hashlib.sha256(b"guard secret " + secret).hexdigest()[:12]
