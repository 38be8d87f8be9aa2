"""Calibrations keep the rows they come from, for the next detector on the same graph."""

from pathlib import Path

import numpy as np
import pytest

from guard import calibration
from guard.data import ImageSet
from guard.errors import PackError
from guard.pack import sign_pack
from guard.pipeline import Pipeline
from guard.rows import Rows
from guard.testing import CLASSES, make_pack
from guard.training.calibrate import CLEAN, CLEAN_ALONE, calibrate, kept_rows, write


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Of a tiny pack."""
    folder = make_pack(tmp_path_factory.mktemp("packs") / "tiny")
    sign_pack(folder)
    return Pipeline.load(folder, max_false_positive_rate=0.1, secret=b"test")


def pictures(pipeline: Pipeline, count: int = 70) -> ImageSet:
    """Noise, in the pack's shape."""
    channels, height, width = pipeline.input_shape
    dice = np.random.default_rng(0)
    images = dice.integers(0, 256, (count, height, width, channels), dtype=np.uint8)
    return ImageSet(images, dice.integers(0, 3, count), CLASSES)


@pytest.mark.parametrize("asked", [True, False])
def test_the_rows_give_the_same_scores(pipeline: Pipeline, tmp_path: Path, asked: bool) -> None:
    """The file holds the evidence of all pictures, and what it calibrates is read as before."""
    kept: list[Rows] = []
    images = pictures(pipeline)
    ask = (lambda part: np.arange(len(part)) % 3) if asked else None
    entries = calibrate(pipeline, images, ask=ask, about={"data": "noise"}, keep=kept.append)
    write(tmp_path / "signs.npz", entries, kept[0])
    rows = kept_rows(tmp_path / "signs.npz")
    assert rows is not None
    assert rows.kinds == (CLEAN if asked else CLEAN_ALONE,)
    assert rows.columns == (*pipeline.pack.columns, "upstream_odds")
    pixels = pipeline.pixels(np.ascontiguousarray(images.images.transpose(0, 3, 1, 2)))
    evidence = pipeline.evidence(pixels)
    assert np.array_equal(rows.features[:, :-1], evidence.rows)
    again = calibration.load(tmp_path / "signs.npz")
    assert list(again) == list(entries)
    if asked:
        column = again["upstream"].names.index("upstream")
        assert np.array_equal(np.sort(rows.features[:, -1]), again["upstream"].scores[:, column])
    else:
        assert not rows.features[:, -1].any()


def test_a_file_without_rows_says_so(pipeline: Pipeline, tmp_path: Path) -> None:
    """Files of earlier versions have none; what is no calibration at all is refused."""
    entries = calibrate(pipeline, pictures(pipeline), ask=None, about={})
    write(tmp_path / "old.npz", entries)
    assert kept_rows(tmp_path / "old.npz") is None
    (tmp_path / "none.npz").write_bytes(b"nothing")
    with pytest.raises(PackError, match="not a calibration"):
        kept_rows(tmp_path / "none.npz")
