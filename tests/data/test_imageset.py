"""ImageSet: its form is checked, its splits keep groups whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.data import ImageSet, concatenate
from guard.errors import InputError


def _set(labels: list[int], groups: list[int] | None = None, K: int = 4) -> ImageSet:
    images = np.arange(len(labels) * 12, dtype=np.uint8).reshape(len(labels), 2, 2, 3)
    known = None if groups is None else np.array(groups, np.int64)
    return ImageSet(images, np.array(labels, np.int64), tuple("abcdefgh"[:K]), known)


def test_pixels() -> None:
    """pixels() are float32 (N, C, H, W), 255 being exactly 1."""
    one = ImageSet(np.full((1, 2, 3, 1), 255, np.uint8), np.zeros(1, np.int64), ("a",))
    assert one.pixels().dtype == np.float32
    assert one.pixels().shape == (1, 1, 2, 3)
    assert (one.pixels() == 1.0).all()


def test_subset() -> None:
    """Integers, masks and slices pick images, labels and groups together."""
    whole = _set([0, 1, 2], [5, 6, 7])
    for index in ([2], np.array([False, False, True]), slice(2, 3)):
        part = whole.subset(index)
        assert part.labels.tolist() == [2]
        assert part.groups is not None
        assert part.groups.tolist() == [7]
        assert np.array_equal(part.images[0], whole.images[2])
    assert len(whole.subset([])) == 0


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=60),
    st.floats(0.05, 0.95),
    st.integers(0, 100),
)
def test_split_keeps_groups_whole(rows: list[tuple[int, int]], share: float, seed: int) -> None:
    """No group is on both sides, nothing is lost, and the split is a function of the seed."""
    whole = _set([group % 4 for group, _ in rows], [group for group, _ in rows])
    rest, held = whole.split_by_group(share, seed=seed)
    assert rest.groups is not None
    assert held.groups is not None
    assert not set(rest.groups) & set(held.groups)
    assert len(rest) + len(held) == len(whole)
    again = whole.split_by_group(share, seed=seed)[1]
    assert np.array_equal(again.images, held.images)


def test_split_is_stratified() -> None:
    """Every class with two groups or more is on both sides; without groups images are groups."""
    rest, held = _set([0] * 10 + [1] * 20 + [2]).split_by_group(0.3, seed=0)
    assert np.bincount(held.labels, minlength=3).tolist() == [3, 6, 0]
    assert np.bincount(rest.labels).tolist() == [7, 14, 1]


def test_concatenate() -> None:
    """Sets of the same classes join; sets of different classes are refused."""
    joined = concatenate([_set([0], [1]), _set([2], [3])])
    assert joined.labels.tolist() == [0, 2]
    assert joined.groups is not None
    with pytest.raises(InputError, match="different classes"):
        concatenate([_set([0]), _set([0], K=3)])


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((1, 2, 2, 3), np.float32), np.zeros(1, np.int64), "images must be uint8"),
        (np.zeros((2, 2, 3), np.uint8), np.zeros(2, np.int64), "images must be uint8"),
        (np.zeros((1, 2, 2, 3), np.uint8), np.zeros(2, np.int64), "labels must be int64"),
        (np.zeros((1, 2, 2, 3), np.uint8), np.ones(1, np.int64), "labels reach"),
        (np.zeros((1, 2, 2, 3), np.uint8), -np.ones(1, np.int64), "labels reach"),
    ],
)
def test_form_is_checked(images: np.ndarray, labels: np.ndarray, message: str) -> None:
    """Wrong dtypes, shapes and labels without a class never become a set."""
    with pytest.raises(InputError, match=message):
        ImageSet(images, labels, ("a",))
