"""Read images from folders: `root/class/*.png` or `root/split/class/*.png`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from guard.data.imageset import ImageSet
from guard.data.picture import decode
from guard.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm")


def read_folder(
    path: str | Path, split: str | None = None, *, size: tuple[int, int] | None = None
) -> ImageSet:
    """Read every picture below `path` (or `path/split`); the sub-folders' names are the classes.

    Classes and files are taken in the order of their names. size: (H, W) to resize to; None
    demands that all pictures have one size. InputError names the file that is at fault.
    """
    classes, files = listed(path, split)
    images: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    for file, label in files:
        channels = int(images[0].shape[2]) if images else None
        image = decode(file.read_bytes(), name=str(file), channels=channels, size=size)
        if images and image.shape != images[0].shape:
            raise InputError(
                f"{file}: {image.shape[:2]} pixels, the first picture {images[0].shape[:2]}; "
                "give a size to resize to"
            )
        images.append(image)
        labels.append(label)
    return ImageSet(np.stack(images), np.asarray(labels, np.int64), classes)


def listed(
    path: str | Path, split: str | None = None
) -> tuple[tuple[str, ...], list[tuple[Path, int]]]:
    """The class names, and every picture's file and label; InputError when there is none."""
    root = Path(path) if split is None else Path(path) / split
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    classes = tuple(sorted(child.name for child in root.iterdir() if _is_class(child)))
    if not classes:
        raise InputError(f"{root}: no folders with pictures; expected {root}/<class>/<name>.png")
    files = [(file, label) for label, name in enumerate(classes) for file in _pictures(root / name)]
    return classes, files


def _is_class(folder: Path) -> bool:
    return folder.is_dir() and not folder.name.startswith(".") and bool(_pictures(folder))


def _pictures(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
