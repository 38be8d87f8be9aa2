"""Write image sets as Parquet in the Hugging Face layout, pictures as PNG: lossless.

What `parquet.py` reads back, and `datasets` too: class names and types of the columns stand in the
schema's metadata. Needs pyarrow (`pip install 'guard[train]'`).
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from guard.data.imageset import ImageSet
from guard.errors import InputError

NOTES = b"guard"  # the key of our own metadata


def write_parquet(
    path: Path,
    images: ImageSet,
    *,
    columns: Mapping[str, ArrayLike] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Write one file; it is there whole or not at all.

    columns: further ones, each (N,) of numbers or booleans; groups become the column `track`.
    notes:   anything JSON can hold, for the file's metadata; `read_notes` gives it back.
    InputError for a column of another length.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    more = {name: np.asarray(values) for name, values in (columns or {}).items()}
    if images.groups is not None:
        more["track"] = images.groups
    for name, values in more.items():
        if values.shape != (len(images),):
            raise InputError(f"column {name!r} has shape {values.shape}, not ({len(images)},)")
    pictures = [{"bytes": png(x), "path": f"{n}.png"} for n, x in enumerate(images.images)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    arrays = {"image": pa.array(pictures, kind), "label": pa.array(images.labels)}
    arrays |= {name: pa.array(values) for name, values in more.items()}
    about = {b"huggingface": json.dumps({"info": {"features": _features(images, more)}}).encode()}
    if notes is not None:
        about[NOTES] = json.dumps(dict(notes)).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    pq.write_table(pa.table(arrays).replace_schema_metadata(about), part)
    part.replace(path)


def read_notes(path: Path) -> dict[str, Any]:
    """The notes in a file's metadata, empty without any; InputError when it is damaged."""
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(path).metadata or {}
        return dict(json.loads(metadata.get(NOTES, b"{}")))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({error})") from error


def read_columns(path: Path, names: list[str]) -> dict[str, NDArray[Any]]:
    """Some of a file's columns of numbers, those that it has."""
    import pyarrow.parquet as pq

    present = [name for name in names if name in pq.read_schema(path).names]
    table = pq.read_table(path, columns=present)
    return {name: table[name].to_numpy() for name in present}


def png(picture: NDArray[np.uint8]) -> bytes:
    """uint8 (H, W, C) as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture).save(file, "PNG")
    return file.getvalue()


def _features(images: ImageSet, columns: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    values = {n: {"dtype": str(x.dtype), "_type": "Value"} for n, x in columns.items()}
    label = {"names": list(images.classes), "_type": "ClassLabel"}
    return {"image": {"_type": "Image"}, "label": label, **values}
