"""Image sets as commands name them: a path, `signs`, or torchvision:NAME."""

from pathlib import Path
from typing import Any

import numpy as np

from guard.cli.plain import note
from guard.errors import GuardError


def read_images(data: str, split: str | None, *, limit: int | None, seed: int = 0) -> Any:
    """An image set by path and split; `signs` draws the procedural one."""
    from guard.data import read, signs

    if data == "signs" and not Path(data).exists():
        seeds = {"train": 1, "test": 2}
        return signs.make(limit or 20000, seed=seeds.get(split or "", 1000 + seed))
    if data.startswith("torchvision:"):
        from guard.training.downloads import download

        images = download(data.partition(":")[2], split or "train")
    else:
        images = read(data, split)
    if limit is not None and limit < len(images):
        images = images.subset(np.random.default_rng(seed).permutation(len(images))[:limit])
    return images


def read_parts(
    data: str, limit: int | None, *, held: str | None = None, extra: str | None = None
) -> Any:
    """The parts a pack or a classifier is made from, whatever splits the set has.

    held: pictures to judge by instead of a part of `data`; extra: more to train on.
    """
    from guard.training.parts import divide_held, enlarged

    if held:
        parts = divide_held(
            read_images(data, "train", limit=limit), read_images(held, None, limit=limit)
        )
    else:
        parts = _divided(data, limit)
    return enlarged(parts, read_images(extra, "train", limit=None)) if extra else parts


def _divided(data: str, limit: int | None) -> Any:
    from guard.training.parts import divide

    if data == "signs" and not Path(data).exists():
        count = limit or 20000
        test_set = read_images(data, "test", limit=count // 2)
        return divide(read_images(data, "train", limit=count), test_set)
    train_set = read_images(data, "train", limit=limit)
    try:
        test_set = read_images(data, "test", limit=limit)
    except GuardError:
        note("no test split: a fifth of the training pictures is set aside")
        test_set = None
    return divide(train_set, test_set)
