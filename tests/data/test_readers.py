"""Parquet and folder readers: they read what is right and name the file of what is wrong."""

import io
import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from guard.data import read, read_folder, read_parquet
from guard.errors import InputError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

NAMES = ["stop", "yield"]


def _encode(array: np.ndarray, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form, **({"lossless": True} if form == "WEBP" else {}))
    return buffer.getvalue()


def _pictures(count: int = 4, shape: tuple[int, ...] = (8, 8, 3)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


def _write(file: Path, pictures: list[Any], labels: list[int], **more: Any) -> Path:
    """A Parquet file in the Hugging Face layout; bytes or arrays are taken as pictures."""
    data = [p if isinstance(p, bytes | None) else _encode(p) for p in pictures]
    columns = {
        "image": pa.array([{"bytes": d, "path": None} for d in data]),
        "label": pa.array(labels, pa.int64()),
    }
    columns |= {name: pa.array(v) for name, v in more.items() if name != "names"}
    table = pa.table(columns)
    names = more.get("names", NAMES)
    if names:
        label = {"names": names, "_type": "ClassLabel"}
        info = json.dumps({"info": {"features": {"label": label}}})
        table = table.replace_schema_metadata({"huggingface": info})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file)
    return file


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_parquet_round_trip(tmp_path: Path, form: str) -> None:
    """Pictures, labels, class names and tracks come back as written, PNG and lossless WebP."""
    pictures = _pictures()
    data = [_encode(p, form) for p in pictures]
    _write(tmp_path / "train.parquet", data, [0, 1, 1, 0], track=[3, 3, 4, 4])
    got = read(tmp_path, "train")
    assert np.array_equal(got.images, pictures)
    assert got.labels.tolist() == [0, 1, 1, 0]
    assert got.classes == ("stop", "yield")
    assert got.groups is not None
    assert got.groups.tolist() == [3, 3, 4, 4]


def test_sharded_names_and_splits(tmp_path: Path) -> None:
    """`data/<split>-00000-of-00002.parquet` shards are read in order; one split at a time."""
    pictures = _pictures()
    for k in range(2):
        part = list(pictures[2 * k : 2 * k + 2])
        _write(tmp_path / f"data/train-0000{k}-of-00002.parquet", part, [0, 1])
    _write(tmp_path / "data/test-00000-of-00001.parquet", [pictures[0]], [1])
    assert np.array_equal(read(tmp_path, "train").images, pictures)
    assert len(read(tmp_path, "test")) == 1
    with pytest.raises(InputError, match="which split"):
        read(tmp_path)
    with pytest.raises(InputError, match="'val'"):
        read(tmp_path, "val")


def test_greyscale_stays_greyscale(tmp_path: Path) -> None:
    """A grey picture keeps one channel."""
    pictures = _pictures(2, (8, 8))
    file = _write(tmp_path / "train.parquet", list(pictures), [0, 1])
    assert np.array_equal(read(file).images[..., 0], pictures)


def test_unknown_tracks_are_no_groups(tmp_path: Path) -> None:
    """A track column of -1 only means that the groups are not known."""
    file = _write(tmp_path / "test.parquet", list(_pictures(2)), [0, 1], track=[-1, -1])
    assert read(file).groups is None


def test_without_class_names(tmp_path: Path) -> None:
    """Classes are numbered when the file does not name them."""
    file = _write(tmp_path / "t.parquet", list(_pictures(2)), [0, 2], names=None)
    assert read(file).classes == ("0", "1", "2")


def test_resize(tmp_path: Path) -> None:
    """Mixed sizes need a size to resize to."""
    mixed = [_pictures(1)[0], _pictures(1, (12, 10, 3))[0]]
    file = _write(tmp_path / "t.parquet", mixed, [0, 1])
    with pytest.raises(InputError, match=r"t\.parquet, row 1: \(12, 10\) pixels"):
        read(file)
    assert read(file, size=(16, 16)).images.shape == (2, 16, 16, 3)


def _bomb() -> bytes:
    """A PNG of a few bytes that claims 30000 x 30000 pixels."""
    head = bytes.fromhex("89504e470d0a1a0a")
    size = (30000).to_bytes(4, "big")
    out = head
    for kind, body in (
        (b"IHDR", size + size + bytes([8, 2, 0, 0, 0])),
        (b"IDAT", b"x"),
        (b"IEND", b""),
    ):
        out += len(body).to_bytes(4, "big") + kind + body
        out += zlib.crc32(kind + body).to_bytes(4, "big")
    return out


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (_encode(_pictures(1)[0])[:80], "not a readable picture"),
        (b"junk", "not a readable picture"),
        (b"", "not a readable picture"),
        (None, "bytes are not in the file"),
        (_bomb(), "not a readable picture|too many"),
    ],
    ids=["truncated", "junk", "empty", "missing", "bomb"],
)
def test_broken_pictures_name_file_and_row(
    tmp_path: Path, picture: bytes | None, message: str
) -> None:
    """A truncated, foreign, empty, missing or gigantic picture names its file and row."""
    file = _write(tmp_path / "t.parquet", [_pictures(1)[0], picture], [0, 1])
    with pytest.raises(InputError, match=message) as caught:
        read(file)
    assert f"{file}, row 1" in str(caught.value)


def test_bad_parquet(tmp_path: Path) -> None:
    """Junk, a truncated file, a missing column and a label without a name name the file."""
    good = _write(tmp_path / "good.parquet", list(_pictures(2)), [0, 1]).read_bytes()
    cases: dict[str, bytes] = {"junk": b"junk", "cut": good[: len(good) // 2], "empty": b""}
    for name, data in cases.items():
        (tmp_path / f"{name}.parquet").write_bytes(data)
        with pytest.raises(InputError, match=f"{name}.parquet: not a readable"):
            read(tmp_path / f"{name}.parquet")
    pq.write_table(pa.table({"label": [1]}), tmp_path / "columns.parquet")
    with pytest.raises(InputError, match=r"columns\.parquet: no column 'image'"):
        read(tmp_path / "columns.parquet")
    for label in (7, -1):
        file = _write(tmp_path / "label.parquet", list(_pictures(1)), [label])
        with pytest.raises(InputError, match="row 0: label"):
            read(file)


def test_damaged_page(tmp_path: Path) -> None:
    """Bytes flipped inside a column are an InputError that names the file, not a crash."""
    file = _write(tmp_path / "t.parquet", list(_pictures(40)), [0, 1] * 20)
    data = bytearray(file.read_bytes())
    data[100:1100] = bytes(1000)
    file.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"t\.parquet"):
        read_parquet(file)


def test_folder(tmp_path: Path) -> None:
    """Sub-folders are the classes, splits above them are optional, hidden folders are skipped."""
    pictures = _pictures()
    for k, where in enumerate(["a/0", "a/1", "b/0", ".cache/0"]):
        file = tmp_path / "train" / f"{where}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(_encode(pictures[k]))
    got = read(tmp_path, "train")
    assert got.classes == ("a", "b")
    assert got.labels.tolist() == [0, 0, 1]
    assert np.array_equal(got.images, pictures[:3])
    assert np.array_equal(read(tmp_path / "train").images, pictures[:3])


def test_bad_folder(tmp_path: Path) -> None:
    """A missing folder, one without pictures, a broken picture and mixed sizes are named."""
    with pytest.raises(InputError, match="nowhere"):
        read(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no folders with pictures"):
        read_folder(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/0.png").write_bytes(_encode(_pictures(1)[0]))
    (tmp_path / "a/1.png").write_bytes(_encode(_pictures(1, (9, 8, 3))[0]))
    with pytest.raises(InputError, match=r"1\.png: \(9, 8\) pixels"):
        read(tmp_path)
    (tmp_path / "a/1.png").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"1\.png: not a readable"):
        read(tmp_path)


def test_data_needs_no_torch_and_no_pyarrow(tmp_path: Path) -> None:
    """The data wing imports neither; without pyarrow the message says what to install."""
    file = _write(tmp_path / "t.parquet", list(_pictures(1)), [0])
    code = (
        "import sys; sys.modules['pyarrow'] = sys.modules['pyarrow.parquet'] = None\n"
        "import guard.data, guard.data.signs\n"
        "from guard.errors import InputError\n"
        "guard.data.signs.make(2, seed=0)\n"
        "assert 'torch' not in sys.modules\n"
        f"try: guard.data.read({str(file)!r})\n"
        "except InputError as error: assert 'guard[train]' in str(error)\n"
        "else: raise SystemExit('read without pyarrow')\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
