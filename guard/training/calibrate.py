"""Calibrates a pack for an upstream or for other pictures. No torch: it runs where guard serves."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from guard import calibration
from guard.calibration import Calibration
from guard.data import ImageSet
from guard.errors import InputError
from guard.pipeline import Pipeline

Floats = NDArray[np.float32]
Ask = Callable[[NDArray[np.uint8]], NDArray[np.generic]]
Log = Callable[[str], None]


def calibrate(
    pipeline: Pipeline,
    images: ImageSet,
    *,
    ask: Ask | None,
    about: dict[str, str],
    batch: int = 32,
    log: Log = lambda _line: None,
) -> dict[str, Calibration]:
    """Calibrations from clean images; with `ask`, also for that upstream.

    ask: uint8 images (N, H, W, C) to the upstream's probabilities (N, K) or labels (N,), in the
    pack's class order. Raises InputError when the images do not fit or an answer is unusable.
    """
    channels, height, width = pipeline.input_shape
    if images.images.shape[1:] != (height, width, channels):
        raise InputError(
            f"the pictures are {images.images.shape[1:]}, not {(height, width, channels)}"
        )
    alone, both = [], []
    for start in range(0, len(images), batch):
        part = images.images[start : start + batch]
        pixels = np.ascontiguousarray(part.transpose(0, 3, 1, 2))
        evidence = pipeline.evidence(pipeline.pixels(pixels))
        alone.append(pipeline.judge(evidence).scores)
        if ask is not None:
            both.append(pipeline.judge(evidence, ask(part)).scores)
        if start // batch % 20 == 19:
            log(f"{start + len(part)} of {len(images)} pictures")
    about = {**about, "pack": pipeline.pack.digest, "images": str(len(images))}
    entries = {"alone": _fit(pipeline, alone, False, about)}
    if ask is not None:
        entries["upstream"] = _fit(pipeline, both, True, about)
    return entries


def write(path: Path, entries: dict[str, Calibration]) -> None:
    """Write the calibration through a temporary file."""
    part = path.with_suffix(path.suffix + ".part")
    part.write_bytes(calibration.dump(entries))
    part.replace(path)


def _fit(
    pipeline: Pipeline, scores: list[Floats], upstream: bool, about: dict[str, str]
) -> Calibration:
    rows = np.concatenate(scores)
    usable = np.isfinite(rows).all(1)
    if not usable.all():
        raise InputError(f"{int((~usable).sum())} of {len(rows)} answers are not finite")
    return Calibration.fit(pipeline.score_names(upstream=upstream), rows, about=about)
