"""Image sets as numpy arrays: Parquet, folders, the procedural signs. No torch in here."""

from __future__ import annotations

from pathlib import Path

from guard.data.folder import read_folder
from guard.data.imageset import ImageSet, concatenate
from guard.data.parquet import read_parquet
from guard.errors import InputError

__all__ = ["ImageSet", "concatenate", "read", "read_folder", "read_parquet"]


def read(
    path: str | Path, split: str | None = None, *, size: tuple[int, int] | None = None
) -> ImageSet:
    """Read a data set: Parquet where there is some, else folders of pictures.

    split: "train", "test", ...; None for a set without splits. size: (H, W) to resize to.
    InputError names the file that is at fault.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.is_file() or any([*path.glob("*.parquet"), *path.glob("data/*.parquet")]):
        return read_parquet(path, split, size=size)
    return read_folder(path, split, size=size)
