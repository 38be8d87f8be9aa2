"""Read one split of an image set picture by picture, going on where a picture is broken.

`guard.data.read` stops at the first broken picture, as training must; a check wants all of them.
Memory is bounded by the working size: large pictures are kept at REACH pixels a side, their
digests and their crops for the JPEG test are taken at full size.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from guard.data.findings import Item
from guard.data.folder import SUFFIXES, listed
from guard.data.imageset import ImageSet
from guard.data.parquet import MAX_CLASSES, class_names, find, rows
from guard.data.picture import decode
from guard.errors import InputError

REACH = 64  # pixels a side, at most, of the pictures a check works on
CROP, CROPS = 64, 4000  # crops for the JPEG test: their side, and how many at most

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Scan:
    """One split, as far as it can be read; N readable pictures.

    pictures: at the working size, labels and groups included
    rows:     int64 (N,), the place of each in the split as it is stored
    digests:  uint64 (N,), of the decoded pixels at full size
    sizes:    int64 (N, 2), height and width as stored
    formats:  how many files of each format; empty when the source is not files
    broken:   row and reason of each picture that cannot be used
    crops:    luma (uint8, top left corner, whole 8x8 blocks) of some pictures, at full size
    names:    by row as stored: the picture's file, where every picture has one
    """

    split: str
    pictures: ImageSet
    rows: NDArray[np.int64]
    digests: NDArray[np.uint64]
    sizes: NDArray[np.int64]
    formats: Mapping[str, int] = field(default_factory=dict)
    broken: tuple[tuple[int, str], ...] = ()
    crops: tuple[Bytes, ...] = ()
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pictures)

    def item(self, index: int, score: float, why: str, partner: Item | None = None) -> Item:
        """The readable picture `index` as a part of a finding."""
        row = int(self.rows[index])
        name = self.names[row] if self.names else ""
        with_ = None if partner is None else (partner.split, partner.row)
        return Item(self.split, row, round(float(score), 4), why, with_, name)


def splits(path: Path) -> list[str]:
    """The names of the splits of a set on disk; none when it has no splits."""
    if path.is_file():
        return []
    files = [*path.glob("*.parquet"), *path.glob("data/*.parquet")]
    if files:
        return sorted({file.stem.split("-0")[0] for file in files})
    inner = (child for child in sorted(path.iterdir()) if child.is_dir())
    return [
        child.name
        for child in inner
        if any(file.suffix.lower() in SUFFIXES for file in child.glob("*/*"))
    ]


def scan(path: Path, split: str | None = None) -> Scan:
    """Read a split of a set on disk; InputError only when there is nothing to read at all."""
    files = find(path, split)
    if files:
        classes = next((names for file in files if (names := class_names(file))), ())
        return _Reading(split or "all", classes).through(r for file in files for r in rows(file))
    classes, listing = listed(path, split)
    names = tuple(str(file.relative_to(path)) for file, _label in listing)
    records = ((file.read_bytes(), label, None) for file, label in listing)
    return _Reading(split or "all", classes, names).through(records)


def scan_images(images: ImageSet, split: str) -> Scan:
    """The same of pictures that are in memory already."""
    reading = _Reading(split, images.classes)
    groups = images.groups if images.groups is not None else np.full(len(images), -1)
    for row in range(len(images)):
        reading.add(row, images.images[row], int(images.labels[row]), int(groups[row]))
    return reading.scan()


Record = tuple[object, object, object]  # bytes, label, group


class _Reading:
    """What gathers while a split is read."""

    def __init__(self, split: str, classes: tuple[str, ...], names: tuple[str, ...] = ()) -> None:
        self.split, self.classes, self.names = split, classes, names
        self.images: list[Bytes] = []
        self.meta: list[tuple[int, int, int, int, int]] = []  # row, label, group, height, width
        self.digests: list[int] = []
        self.broken: list[tuple[int, str]] = []
        self.formats: Counter[str] = Counter()
        self.crops: list[Bytes] = []

    def through(self, records: Iterator[Record]) -> Scan:
        """Decode all of them."""
        for row, (data, label, group) in enumerate(records):
            try:
                if not isinstance(data, bytes):
                    raise InputError("the picture's bytes are not in the file")
                known = len(self.classes) or MAX_CLASSES
                if not isinstance(label, int) or not 0 <= label < known:
                    raise InputError(f"label {label!r} is not one of the {known}")
                picture = decode(data, name="picture")
            except InputError as error:
                self.broken.append((row, _reason(error)))
                continue
            self.formats[_format(data)] += 1
            self.add(row, picture, label, group if isinstance(group, int) else -1)
        return self.scan()

    def add(self, row: int, picture: Bytes, label: int, group: int) -> None:
        """One decoded picture (H, W, C)."""
        height, width = picture.shape[:2]
        self.meta.append((row, label, group, height, width))
        digest = blake2b(picture.tobytes(), digest_size=8, key=f"{picture.shape}".encode())
        self.digests.append(int.from_bytes(digest.digest(), "big"))
        if len(self.crops) < CROPS and min(height, width) >= 16:
            rows_, columns = (min(side, CROP) // 8 * 8 for side in (height, width))
            self.crops.append(_luma(picture[:rows_, :columns]))
        self.images.append(_bounded(picture))

    def scan(self) -> Scan:
        """Everything gathered, the pictures brought to one size and one number of channels."""
        if not self.images:
            raise InputError(f"no readable picture in split {self.split!r}")
        meta = np.array(self.meta, np.int64)
        names = self.classes or tuple(str(k) for k in range(int(meta[:, 1].max()) + 1))
        groups = meta[:, 2] if (meta[:, 2] >= 0).any() else None
        pictures = ImageSet(_stacked(self.images), meta[:, 1].copy(), names, groups)
        return Scan(
            split=self.split,
            pictures=pictures,
            rows=meta[:, 0].copy(),
            digests=np.array(self.digests, np.uint64),
            sizes=meta[:, 3:].copy(),
            formats=dict(self.formats),
            broken=tuple(self.broken),
            crops=tuple(self.crops),
            names=self.names,
        )


def _stacked(images: list[Bytes]) -> Bytes:
    """(N, H, W, C) at the commonest size; grey pictures are repeated when others have colours."""
    (height, width), _ = Counter(image.shape[:2] for image in images).most_common(1)[0]
    channels = max(image.shape[2] for image in images)
    out = np.empty((len(images), height, width, channels), np.uint8)
    for index, image in enumerate(images):
        out[index] = _resized(image, (height, width))
        images[index] = out[index, :0]  # the list's own copy is free to go
    return out


def _bounded(picture: Bytes) -> Bytes:
    height, width = picture.shape[:2]
    factor = REACH / max(height, width)
    if factor >= 1:
        return picture
    return _resized(picture, (max(8, round(height * factor)), max(8, round(width * factor))))


def _resized(picture: Bytes, size: tuple[int, int]) -> Bytes:
    if picture.shape[:2] == size:
        return picture
    flat = picture[:, :, 0] if picture.shape[2] == 1 else picture
    made = Image.fromarray(flat).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    array = np.asarray(made, np.uint8)
    return array[:, :, None] if array.ndim == 2 else array


def _luma(picture: Bytes) -> Bytes:
    """ITU-R 601, as JPEG has it."""
    if picture.shape[2] == 1:
        return picture[:, :, 0].copy()
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    return (picture @ weights + np.float32(0.5)).astype(np.uint8)


def _reason(error: InputError) -> str:
    """Without the name every picture has here and without Pillow's addresses in memory."""
    text = str(error).removeprefix("picture: ")
    return re.sub(r" <_io.BytesIO[^>]*>", "", text)


def _format(data: bytes) -> str:
    starts = ((b"\xff\xd8", "JPEG"), (b"\x89PNG", "PNG"), (b"RIFF", "WebP"), (b"BM", "BMP"))
    return next((name for start, name in starts if data.startswith(start)), "other")
