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
from guard.rows import Rows
from guard.rows import dump as dump_rows
from guard.rows import load as load_rows

Floats = NDArray[np.float32]
Ask = Callable[[NDArray[np.uint8]], NDArray[np.generic]]
Log = Callable[[str], None]
Keep = Callable[[Rows], None]

ODDS = "upstream_odds"  # the last feature of a row, as `guard.defenses.upstream` has it
CLEAN, CLEAN_ALONE = "clean", "clean alone"  # alone: there was no upstream to ask
ROWS = "rows"  # in the file, beside the entries


def calibrate(
    pipeline: Pipeline,
    images: ImageSet,
    *,
    ask: Ask | None,
    about: dict[str, str],
    batch: int = 32,
    log: Log = lambda _line: None,
    keep: Keep = lambda _rows: None,
) -> dict[str, Calibration]:
    """Calibrations from clean images; with `ask`, also for that upstream.

    ask: uint8 images (N, H, W, C) to the upstream's probabilities (N, K) or labels (N,), in the
    pack's class order. keep: is given the rows of evidence, so that another detector on the same
    graph can be calibrated without the pictures. Raises InputError when the images do not fit or an
    answer is unusable.
    """
    channels, height, width = pipeline.input_shape
    if images.images.shape[1:] != (height, width, channels):
        raise InputError(
            f"the pictures are {images.images.shape[1:]}, not {(height, width, channels)}"
        )
    alone, both, seen = [], [], []
    for start in range(0, len(images), batch):
        part = images.images[start : start + batch]
        pixels = np.ascontiguousarray(part.transpose(0, 3, 1, 2))
        evidence = pipeline.evidence(pipeline.pixels(pixels))
        seen.append(evidence.rows)
        alone.append(pipeline.judge(evidence).scores)
        if ask is not None:
            both.append(pipeline.judge(evidence, ask(part)).scores)
        if start // batch % 20 == 19:
            log(f"{start + len(part)} of {len(images)} pictures")
    about = {**about, "pack": pipeline.pack.digest, "images": str(len(images))}
    entries = {"alone": _fit(pipeline, alone, False, about)}
    if ask is not None:
        entries["upstream"] = _fit(pipeline, both, True, about)
    keep(seen_rows(pipeline, np.concatenate(seen), np.concatenate(both) if both else None))
    return entries


def seen_rows(pipeline: Pipeline, evidence: Floats, scores: Floats | None) -> Rows:
    """Rows on clean pictures from evidence (N, E), and the scores (N, D) with an upstream.

    The odds against the upstream's label are one of the scores.
    """
    odds = np.zeros((len(evidence), 1), np.float32)
    names = pipeline.score_names(upstream=True)
    answered = scores is not None and "upstream" in names
    if scores is not None and answered:
        odds = scores[:, [names.index("upstream")]]
    return Rows.of(
        CLEAN if answered else CLEAN_ALONE,
        (*pipeline.pack.columns, ODDS),
        np.concatenate([evidence, odds], axis=1),
        suspicious=False,
    )


def write(path: Path, entries: dict[str, Calibration], rows: Rows | None = None) -> None:
    """Write the calibration through a temporary file, with the rows that it comes from."""
    beside = {} if rows is None else {ROWS: np.frombuffer(dump_rows({CLEAN: rows}), np.uint8)}
    data = calibration.dump(entries, beside)
    part = path.with_suffix(path.suffix + ".part")
    part.write_bytes(data)
    part.replace(path)


def kept_rows(path: Path) -> Rows | None:
    """The rows that `write` put beside the calibration; None where there are none."""
    calibration.load(path)  # says what is wrong with the file
    with np.load(path, allow_pickle=False) as stored:
        return load_rows(stored[ROWS].tobytes())[CLEAN] if ROWS in stored.files else None


def _fit(
    pipeline: Pipeline, scores: list[Floats], upstream: bool, about: dict[str, str]
) -> Calibration:
    rows = np.concatenate(scores)
    usable = np.isfinite(rows).all(1)
    if not usable.all():
        raise InputError(f"{int((~usable).sum())} of {len(rows)} answers are not finite")
    return Calibration.fit(pipeline.score_names(upstream=upstream), rows, about=about)
