"""Rows of evidence, kept and read back."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.errors import InputError, PackError
from guard.rows import Rows, dump, joined, load

COLUMNS = ("first", "second", "upstream_odds")


def some(kind: str, count: int, *, suspicious: bool = False, seed: int = 0) -> Rows:
    """Random rows of one kind."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(count, 3)).astype(np.float32)
    return Rows.of(
        kind, COLUMNS, features, suspicious=suspicious, label=random.integers(0, 5, count)
    )


@given(st.lists(st.integers(0, 7), min_size=1, max_size=4))
def test_what_is_written_is_read(counts: list[int]) -> None:
    """Tables of any size come back number for number, kinds and labels with them."""
    rows = joined([some(f"kind {n}", size, seed=n) for n, size in enumerate(counts)])
    again = load(dump({"learn": rows, "holdout": rows}))
    assert list(again) == ["holdout", "learn"]
    assert again["learn"].columns == COLUMNS
    assert again["learn"].kinds == rows.kinds
    for part in ("features", "suspicious", "kind", "label"):
        assert np.array_equal(getattr(again["learn"], part), getattr(rows, part))


def test_the_same_rows_are_the_same_bytes() -> None:
    """A pack's digest does not depend on when its rows were written."""
    assert dump({"learn": some("clean", 5)}) == dump({"learn": some("clean", 5)})


def test_kinds_stay_apart() -> None:
    """Rows of one kind are found among others, and none of a kind that is not there."""
    rows = joined([some("clean", 3), some("blur", 2), some("clean", 4, seed=1)])
    assert rows.kinds == ("clean", "blur")
    assert len(rows.only("clean")) == 7
    assert len(rows.only("blur")) == 2
    assert len(rows.only("snow")) == 0


def test_rows_of_two_graphs_are_not_mixed() -> None:
    """Other columns mean other numbers."""
    other = Rows.of("clean", ("one",), np.zeros((2, 1), np.float32), suspicious=False)
    with pytest.raises(InputError, match="one graph"):
        joined([some("clean", 2), other])
    with pytest.raises(InputError, match="one graph"):
        joined([])


def test_a_number_that_is_not_finite_is_no_row() -> None:
    """NaN would make everything learned from it NaN."""
    with pytest.raises(InputError, match="not finite"):
        Rows.of("clean", COLUMNS, np.full((1, 3), np.nan, np.float32), suspicious=False)


def test_parts_of_other_lengths_are_refused() -> None:
    """Every row has its kind, label and mark."""
    with pytest.raises(InputError, match="one kind, one label"):
        Rows.of("clean", COLUMNS, np.zeros((2, 3), np.float32), suspicious=False, label=np.zeros(3))
    with pytest.raises(InputError, match=r"not \(R, 3\)"):
        Rows.of("clean", COLUMNS, np.zeros((2, 4), np.float32), suspicious=False)


def altered(change: Callable[[dict[str, np.ndarray]], None]) -> bytes:
    """A file of rows, changed."""
    with np.load(io.BytesIO(dump({"learn": some("clean", 4)}))) as stored:
        arrays = {name: stored[name] for name in stored.files}
    change(arrays)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=True, **arrays)
    return buffer.getvalue()


def _objects(arrays: dict[str, np.ndarray]) -> None:
    arrays["learn.features"] = np.array([[object()]], dtype=object)


def _other_kind(arrays: dict[str, np.ndarray]) -> None:
    arrays["learn.kind"] = arrays["learn.kind"] + 9


def _no_table(arrays: dict[str, np.ndarray]) -> None:
    arrays["about"] = np.frombuffer(json.dumps({"learn": []}).encode(), np.uint8)


def _lacking(arrays: dict[str, np.ndarray]) -> None:
    del arrays["learn.label"]


@pytest.mark.parametrize("change", [_objects, _other_kind, _no_table, _lacking])
def test_an_altered_file_is_refused(change: Callable[[dict[str, np.ndarray]], None]) -> None:
    """Nothing is unpickled, and what does not fit together is a PackError."""
    with pytest.raises(PackError, match="not a file of rows"):
        load(altered(change))


def test_a_file_that_unpacks_to_gigabytes_is_refused() -> None:
    """The claimed sizes are looked at before anything is unpacked."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("about.npy", b"\0" * (257 << 20))
    with pytest.raises(PackError, match="unpacks to more"):
        load(buffer.getvalue())


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The path stands in the message."""
    with pytest.raises(PackError, match="nowhere"):
        load(tmp_path / "nowhere.npz")
