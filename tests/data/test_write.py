"""Image sets written and read back."""

from pathlib import Path

import numpy as np
import pytest

from guard.data import read, signs
from guard.data.imageset import ImageSet
from guard.data.write import read_columns, read_notes, write_parquet
from guard.errors import InputError


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_written_is_read(tmp_path: Path, channels: int) -> None:
    """Every pixel, label, class name and group comes back."""
    some = signs.make(9, seed=3)
    images = ImageSet(some.images[..., :channels], some.labels, some.classes, np.arange(9) // 3)
    write_parquet(tmp_path / "test-00000-of-00001.parquet", images)
    back = read(tmp_path, "test")
    assert np.array_equal(back.images, images.images)
    assert np.array_equal(back.labels, images.labels)
    assert back.classes == images.classes
    assert back.groups is not None
    assert np.array_equal(back.groups, np.arange(9) // 3)


def test_columns_and_notes(tmp_path: Path) -> None:
    """Further columns keep their types, notes their structure; the schema names them all."""
    import pyarrow.parquet as pq

    images, path = signs.make(3, seed=3), tmp_path / "x.parquet"
    columns = {"l2": np.float32([0, 1, 2]), "fooled": np.array([True, False, True])}
    write_parquet(path, images, columns=columns, notes={"attack": {"eps": 0.5}})
    assert read_notes(path) == {"attack": {"eps": 0.5}}
    back = read_columns(path, ["l2", "fooled", "absent"])
    assert {name: values.dtype for name, values in back.items()} == {"l2": "f4", "fooled": "?"}
    assert pq.read_schema(path).names == ["image", "label", "l2", "fooled"]
    assert np.array_equal(read(path).labels, images.labels)


def test_a_column_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """It is named, and no file is left behind."""
    with pytest.raises(InputError, match="'l2'"):
        write_parquet(tmp_path / "x.parquet", signs.make(3, seed=3), columns={"l2": [1.0]})
    assert not list(tmp_path.iterdir())


def test_notes_of_something_else(tmp_path: Path) -> None:
    """A damaged file is one line that names it."""
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match=r"x\.parquet"):
        read_notes(tmp_path / "x.parquet")
