"""The public image sets, downloaded through torchvision and turned into `ImageSet`s.

GTSRB: Stallkamp et al. 2012; CIFAR-10: Krizhevsky 2009; MNIST: LeCun et al. 1998. Their licences
are their authors'; guard ships none of them.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from guard.data import ImageSet
from guard.errors import InputError

PREFIX = "torchvision:"
SIZE = 32  # GTSRB pictures come in all sizes


def download(name: str, split: str, *, root: Path = Path(".cache/torchvision")) -> ImageSet:
    """`gtsrb`, `cifar10` or `mnist`, split `train` or `test`; downloaded to `root` once.

    Raises InputError for an unknown name or split, or when the download fails.
    """
    makers: dict[str, Callable[[Any, str, Path], ImageSet]] = {
        "gtsrb": _gtsrb,
        "cifar10": _cifar10,
        "mnist": _mnist,
    }
    if name not in makers or split not in ("train", "test"):
        raise InputError(f"no set {name!r} with split {split!r}; there are {', '.join(makers)}")
    from torchvision import datasets

    try:
        return makers[name](datasets, split, root)
    except (OSError, RuntimeError) as error:
        raise InputError(f"{PREFIX}{name}: {error}") from error


def gather(
    pairs: Iterable[tuple[Image.Image, int]],
    classes: Sequence[str],
    groups: Sequence[int] | None = None,
) -> ImageSet:
    """Pictures and labels as one set of SIZE x SIZE RGB images."""
    images, labels = [], []
    for picture, label in pairs:
        small = picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        images.append(np.asarray(small, np.uint8))
        labels.append(label)
    tracks = None if groups is None else np.array(groups, np.int64)
    return ImageSet(np.stack(images), np.array(labels, np.int64), tuple(classes), tracks)


def track(path: str | Path, label: int) -> int:
    """The video track of a GTSRB training picture: class, and the first part of its file name."""
    return label * 100_000 + int(Path(path).stem.split("_")[0])


def _gtsrb(datasets: Any, split: str, root: Path) -> ImageSet:
    found = datasets.GTSRB(str(root), split=split, download=True)
    listed: list[tuple[str, int]] = found._samples
    groups = [track(path, label) for path, label in listed] if split == "train" else None
    return gather(found, [f"class {index}" for index in range(43)], groups)


def _cifar10(datasets: Any, split: str, root: Path) -> ImageSet:
    found = datasets.CIFAR10(str(root), train=split == "train", download=True)
    return ImageSet(np.asarray(found.data, np.uint8), _labels(found.targets), tuple(found.classes))


def _mnist(datasets: Any, split: str, root: Path) -> ImageSet:
    found = datasets.MNIST(str(root), train=split == "train", download=True)
    pixels = found.data.numpy().astype(np.uint8)[..., None]
    return ImageSet(pixels, _labels(found.targets.numpy()), tuple(map(str, range(10))))


def _labels(values: Any) -> NDArray[np.int64]:
    return np.asarray(values, np.int64)
