"""Read images from Parquet files in the Hugging Face layout.

Columns: `image` (struct of `bytes` and `path`), `label` (integer), optionally `track` (integer):
which video the frame was cut from. The class names stand in the schema's metadata, as `datasets`
writes them. Needs pyarrow (`pip install 'guard[train]'`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guard.data.imageset import ImageSet
from guard.data.picture import decode
from guard.errors import InputError

MAX_CLASSES = 100_000  # of a set that does not name them: one label may claim any number


def find(path: Path, split: str | None = None) -> list[Path]:
    """The Parquet files of one split, in order; an empty list when there are none.

    `path` is a file (then `split` must be None or its name) or a folder with `<split>.parquet` or
    `<split>-00000-of-00001.parquet`, directly or under `data/`.
    """
    if path.is_file():
        return [path] if path.suffix == ".parquet" and split in (None, _split(path)) else []
    files = sorted([*path.glob("*.parquet"), *path.glob("data/*.parquet")])
    splits = sorted({_split(file) for file in files})
    if split is None and len(splits) > 1:
        raise InputError(f"{path}: which split? There are {', '.join(splits)}")
    return [file for file in files if split in (None, _split(file))]


def read_parquet(
    path: str | Path, split: str | None = None, *, size: tuple[int, int] | None = None
) -> ImageSet:
    """Read one split into memory.

    size: (H, W) to resize to; None demands that all pictures have one size.
    InputError, naming the file and the row, for a missing column, a broken picture, mixed sizes
    or a label without a name.
    """
    files = find(Path(path), split)
    if not files:
        raise InputError(f"{path}: no Parquet file" + (f" of split {split!r}" if split else ""))
    images: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    tracks: list[int] = []
    classes: tuple[str, ...] = ()
    for file in files:
        classes = class_names(file) or classes
        for row, (data, label, track) in enumerate(rows(file)):
            name = f"{file}, row {row}"
            images.append(_picture(data, name, images[0] if images else None, size))
            labels.append(_label(label, name, classes))
            tracks.append(track if isinstance(track, int) else -1)
    if not images:
        raise InputError(f"{files[0]}: no rows")
    names = classes or tuple(str(k) for k in range(max(labels) + 1))
    groups = np.asarray(tracks, np.int64)
    known = bool((groups >= 0).any())
    return ImageSet(
        np.stack(images), np.asarray(labels, np.int64), names, groups if known else None
    )


def _split(file: Path) -> str:
    return re.sub(r"-\d+-of-\d+$", "", file.stem)


def _open(file: Path) -> Any:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise InputError(
            f"{file}: reading Parquet needs pyarrow: pip install 'guard[train]'"
        ) from error
    try:
        return pq.ParquetFile(file)
    except Exception as error:  # pyarrow: ArrowInvalid, OSError, ...
        raise InputError(f"{file}: not a readable Parquet file ({error})") from error


def class_names(file: Path) -> tuple[str, ...]:
    """The class names in the schema's metadata; empty when it has none."""
    metadata = _open(file).schema_arrow.metadata or {}
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"]["label"]["names"]
    except (KeyError, TypeError, ValueError):
        return ()
    return tuple(str(name) for name in names)


def rows(file: Path) -> Iterator[tuple[object, object, object]]:
    """Each row's picture, label and track (None without one)."""
    table = _open(file)
    present = set(table.schema_arrow.names)
    for column in ("image", "label"):
        if column not in present:
            raise InputError(f"{file}: no column {column!r}")
    columns = [name for name in ("image", "label", "track") if name in present]
    try:
        for batch in table.iter_batches(1024, columns=columns):
            for row in batch.to_pylist():
                image = row["image"]
                data = image.get("bytes") if isinstance(image, dict) else image
                yield data, row["label"], row.get("track")
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: damaged ({error})") from error


def _picture(
    data: object, name: str, like: NDArray[np.uint8] | None, size: tuple[int, int] | None
) -> NDArray[np.uint8]:
    if not isinstance(data, bytes):
        raise InputError(f"{name}: the picture's bytes are not in the file")
    channels = None if like is None else int(like.shape[2])
    image = decode(data, name=name, channels=channels, size=size)
    if like is not None and image.shape != like.shape:
        raise InputError(f"{name}: {image.shape[:2]} pixels, the first picture {like.shape[:2]}")
    return image


def _label(label: object, name: str, classes: tuple[str, ...]) -> int:
    known = len(classes) or MAX_CLASSES
    if not isinstance(label, int) or not 0 <= label < known:
        raise InputError(f"{name}: label {label!r} is not one of the {known} classes")
    return label
