"""What a model has seen since the start, whichever packs guarded it."""

import numpy as np
from numpy.typing import NDArray

from guard.verdict import Decision


class Tally:
    """Requests, images, and images by decision."""

    def __init__(self) -> None:
        self.requests = self.images = 0
        self.decisions = np.zeros(len(Decision), np.int64)

    def add(self, decisions: NDArray[np.int32]) -> None:
        """So many images (N,) were decided about."""
        self.images += len(decisions)
        self.decisions += np.bincount(decisions, minlength=len(Decision))
