"""A suspect as bytes and back: every bit, and nothing that is not one."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from guard.errors import StoreError
from guard.suspects.packing import LENGTH, pack, unpack
from guard.suspects.record import Suspect
from guard.suspects.suspect_store import SuspectStore
from guard.verdict import Decision, Verdict
from tests.suspects.samples import same, suspect

FLOAT = st.floats(width=32)
WIDE = st.floats()
VECTOR = arrays.arrays(np.float32, st.integers(0, 12), elements=FLOAT)
IMAGE = arrays.arrays(np.float32, st.tuples(*[st.integers(1, 6)] * 3), elements=FLOAT)
LEVELS = arrays.arrays(np.uint8, st.tuples(*[st.integers(1, 6)] * 3)).map(
    lambda levels: (levels / np.float32(255)).astype(np.float32)
)
SCORES = st.dictionaries(st.text(max_size=8), WIDE, max_size=3)
TEXT = st.text(max_size=10)
SUSPECTS = st.builds(
    Suspect,
    id=st.just("i"), taken=WIDE, model=TEXT, pack=TEXT, tenant=TEXT, client=TEXT,
    near=st.lists(st.integers(0, 2**63 - 1), max_size=8).map(tuple), sampled=st.booleans(),
    budget=WIDE,
    verdict=st.builds(
        Verdict, st.sampled_from(Decision), WIDE, st.integers(0, 9), SCORES, SCORES,
        st.booleans(), TEXT,
    ),
    image=IMAGE | LEVELS, evidence=VECTOR, probabilities=VECTOR, upstream=st.none() | VECTOR,
    noise_index=st.integers(0, 2**70), trace=TEXT, engine=TEXT,
    place=st.tuples(st.integers(0, 9), st.integers(1, 9)),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(SUSPECTS)
def test_every_bit_survives(one: Suspect) -> None:
    """Any floats there are (NaN, infinities, -0.0), any text, any shape."""
    assert same(unpack(pack(one), "i"), one)


def test_every_grey_level_takes_one_byte(store: SuspectStore) -> None:
    """A picture of whole grey levels is a quarter of its size; half a level more is all of it."""
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    image = levels / np.float32(255)
    whole = suspect(store, 1, image=image)
    half = dataclasses.replace(whole, image=image * np.float32(0.9))
    assert len(pack(half)) - len(pack(whole)) == 3 * 256 + 1  # "float32" is a longer word, too
    assert same(unpack(pack(whole), whole.id), whole)
    assert same(unpack(pack(half), whole.id), half)


def test_a_newer_field_may_be_missing(store: SuspectStore) -> None:
    """A record from before a field was added opens, with that field's default."""
    one = suspect(store, 1, engine="cpu", place=(3, 8))
    raw = pack(one)
    (length,) = LENGTH.unpack_from(raw)
    header = json.loads(raw[4 : 4 + length])
    del header["place"]
    text = json.dumps(header).encode()
    found = unpack(LENGTH.pack(len(text)) + text + raw[4 + length :], one.id)
    assert same(found, dataclasses.replace(one, place=(0, 1)))


@pytest.mark.parametrize("cut", [0, 3, 4, 10, 200, -1])
def test_what_is_cut_or_too_long_is_no_suspect(store: SuspectStore, cut: int) -> None:
    """Not a shorter one, and not one with something behind it."""
    raw = pack(suspect(store, 1))
    for wrong in (raw[:cut], raw + b"\0", b"\xff" * 64):
        with pytest.raises(StoreError, match="cannot be understood"):
            unpack(wrong, "i")


def test_another_s_record_is_refused(store: SuspectStore) -> None:
    """A record says itself whose it is."""
    with pytest.raises(StoreError, match="another's"):
        unpack(pack(suspect(store, 1)), "somebody")
