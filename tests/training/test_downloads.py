"""Public sets through torchvision; nothing is downloaded here."""

import numpy as np
import pytest
from PIL import Image

from guard.errors import InputError
from guard.training.downloads import download, gather, track


def test_pictures_of_any_size_become_one_set() -> None:
    """Pictures are brought to one size and colour form, labels and groups kept in order."""
    pairs = [(Image.new("L", (40, 25), 200), 1), (Image.new("RGB", (15, 15), (9, 9, 9)), 0)]
    found = gather(pairs, ["a", "b"], [7, 8])
    assert found.images.shape == (2, 32, 32, 3)
    assert found.images[0].min() == found.images[0].max() == 200
    assert found.labels.tolist() == [1, 0]
    assert found.groups is not None
    assert found.groups.tolist() == [7, 8]


def test_frames_of_one_track_share_a_group() -> None:
    """GTSRB's file names give the track: its frames stay together, classes stay apart."""
    assert track("00003/00012_00001.ppm", 3) == track("00003/00012_00029.ppm", 3)
    assert track("00003/00012_00001.ppm", 3) != track("00004/00012_00001.ppm", 4)


@pytest.mark.parametrize(("name", "split"), [("imagenet", "train"), ("mnist", "video")])
def test_unknown_sets_are_named(name: str, split: str) -> None:
    """An unknown set or split is an InputError that lists what there is."""
    with pytest.raises(InputError, match="there are gtsrb"):
        download(name, split)


def test_a_failed_download_is_one_plain_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network the error names the set instead of a traceback."""
    from torchvision import datasets

    def refuse(*_: object, **__: object) -> np.ndarray:
        raise RuntimeError("no network")

    monkeypatch.setattr(datasets, "MNIST", refuse)
    with pytest.raises(InputError, match="torchvision:mnist: no network"):
        download("mnist", "train")
