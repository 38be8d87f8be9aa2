"""The demo's client: single-image requests over the wire, and a look at /metrics.

Letters: N images, K classes, C H W.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPConnection

import numpy as np
from numpy.typing import NDArray

from guard.client import CallError, Client

MODEL = "signs"
BLOCKED = "ADVERSARIAL_INPUT"
Bytes = NDArray[np.uint8]  # (N, C, H, W)
Floats = NDArray[np.float32]

_SERIES = re.compile(r"^(guard_(?:verdicts|alarms|requests)_total\{[^}]*\}) (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Seen:
    """What a client got for N images: labels int64 (N,), -1 where blocked, and seconds (N,)."""

    labels: NDArray[np.int64]
    seconds: NDArray[np.float64]

    @property
    def blocked(self) -> NDArray[np.bool_]:
        """Which were refused as adversarial."""
        return self.labels < 0


def pixels(images: Bytes) -> Floats:
    """As the production model takes them: float32 in [0, 1]."""
    return images.astype(np.float32) / np.float32(255)


def probabilities(client: Client, images: Bytes) -> Floats:
    """The production model's probabilities (N, K), in one request."""
    logits = client.infer(MODEL, pixels(images)).outputs["logits"]
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    normal: Floats = (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
    return normal


def ask_both(
    direct: Client, gateway: Client, images: Bytes, *, say: Callable[[str], None]
) -> tuple[Seen, Seen]:
    """Ask production itself and the gateway, in turns, one request per image."""
    labels = np.full((2, len(images)), -1, np.int64)
    seconds = np.zeros((2, len(images)))
    for index in range(len(images)):
        one = pixels(images[index : index + 1])
        for row, client in enumerate((direct, gateway)):
            start = time.perf_counter()
            labels[row, index] = _ask(client, one)
            seconds[row, index] = time.perf_counter() - start
        if index % 250 == 249:
            say(f"      {index + 1} of {len(images)} sent")
    return Seen(labels[0], seconds[0]), Seen(labels[1], seconds[1])


def _ask(client: Client, image: Floats) -> int:
    try:
        return int(client.infer(MODEL, image).outputs["logits"][0].argmax())
    except CallError as error:
        if error.reason != BLOCKED:
            raise
        return -1


def scrape(port: int) -> dict[str, float]:
    """The verdicts, alarms and requests that /metrics counts; those still at zero are left out."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    return {series: float(value) for series, value in _SERIES.findall(text) if float(value)}
