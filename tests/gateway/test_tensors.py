"""Tensors: every datatype, both forms, and nothing but InputError for what does not fit."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from guard.errors import InputError
from guard.gateway import tensors
from guard.gateway.protocol import InferTensorContents

ml_dtypes = pytest.importorskip("ml_dtypes")
SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=5)
FIXED = sorted(set(tensors.DATATYPES) - {"BYTES"})


@st.composite
def typed_arrays(draw: st.DrawFn) -> tuple[str, tensors.Array]:
    """A datatype and an array that it can hold exactly."""
    name = draw(st.sampled_from(sorted(tensors.DATATYPES)))
    shape = draw(SHAPES)
    if name == "BYTES":
        count = int(np.prod(shape))
        items = draw(st.lists(st.binary(max_size=9), min_size=count, max_size=count))
        array = np.empty(count, object)
        array[:] = items
        return name, array.reshape(shape)
    if name == "BF16":
        bits = draw(arrays.arrays(np.uint16, shape))
        return name, bits.view(ml_dtypes.bfloat16).astype(np.float32)
    return name, draw(arrays.arrays(tensors.DATATYPES[name].wire, shape))


def _same(left: tensors.Array, right: tensors.Array) -> bool:
    if left.dtype.kind == "f":
        return left.shape == right.shape and np.array_equal(left, right, equal_nan=True)
    return left.shape == right.shape and left.tolist() == right.tolist()


@settings(deadline=None)
@given(typed_arrays())
def test_raw_round_trip(case: tuple[str, Any]) -> None:
    """from_raw(to_raw(x)) is x for every datatype and shape."""
    name, array = case
    back = tensors.from_raw(tensors.to_raw(array, name), name, array.shape, "x")
    assert back.dtype == tensors.DATATYPES[name].array
    assert _same(array, back)


@settings(deadline=None)
@given(typed_arrays())
def test_typed_round_trip(case: tuple[str, Any]) -> None:
    """The same through typed contents; FP16 and BF16 are refused there."""
    name, array = case
    contents = InferTensorContents()
    if not tensors.DATATYPES[name].field:
        with pytest.raises(InputError, match="typed contents"):
            tensors.to_typed(contents, array, name, "x")
        return
    tensors.to_typed(contents, array, name, "x")
    assert _same(array, tensors.from_typed(contents, name, array.shape, "x"))


def test_raw_is_a_view() -> None:
    """The raw form is not copied: the array lies in the message's bytes, read-only."""
    data = np.arange(6, dtype=np.float32).tobytes()
    array = tensors.from_raw(data, "FP32", [2, 3], "x")
    assert array.base is not None
    assert not array.flags.writeable
    assert np.shares_memory(array, np.frombuffer(data, np.float32))


@settings(deadline=None)
@given(arrays.arrays(np.float32, 40))
def test_bf16_rounds_as_others_do(array: Any) -> None:
    """float32 to BF16 rounds to the nearest even, as ml_dtypes does; NaN stays NaN."""
    raw = tensors.to_raw(array, "BF16")
    ours = np.frombuffer(raw, ml_dtypes.bfloat16).astype(np.float32)
    with np.errstate(over="ignore"):
        theirs = array.astype(ml_dtypes.bfloat16).astype(np.float32)
    assert np.array_equal(ours, theirs, equal_nan=True)


@settings(deadline=None)
@given(
    st.binary(max_size=64),
    st.sampled_from([*tensors.DATATYPES, "", "fp32", "STRING"]),
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 8), max_size=20),
)
def test_raw_garbage(data: bytes, name: str, shape: list[int]) -> None:
    """Random bytes under a random datatype and shape give an array of that shape or InputError."""
    try:
        array = tensors.from_raw(data, name, shape, "x")
    except InputError as error:
        assert error.tensor == "x"
        assert str(error).startswith("x: ")
    else:
        assert array.shape == tuple(shape)


@settings(deadline=None)
@given(
    st.binary(max_size=64),
    st.sampled_from([*tensors.DATATYPES, "", "fp32"]),
    st.lists(st.integers(-1, 4), max_size=4),
)
def test_typed_garbage(data: bytes, name: str, shape: list[int]) -> None:
    """The same for typed contents, whatever fields the random bytes fill."""
    try:
        contents = InferTensorContents.FromString(data)
    except Exception:  # protobuf's own business
        return
    try:
        array = tensors.from_typed(contents, name, shape, "x")
    except InputError as error:
        assert error.tensor == "x"
    else:
        assert array.shape == tuple(shape)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("INT8", "int_contents", 128),
        ("INT16", "int_contents", -40_000),
        ("UINT8", "uint_contents", 256),
        ("UINT16", "uint_contents", 2**16),
    ],
)
def test_typed_numbers_must_fit(name: str, field: str, value: int) -> None:
    """A number beyond its datatype is refused, not wrapped around."""
    contents = InferTensorContents(**{field: [0, value]})
    with pytest.raises(InputError, match=f"does not fit {name}"):
        tensors.from_typed(contents, name, [2], "x")


def test_bool_bytes() -> None:
    """A raw BOOL is 0 or 1."""
    assert tensors.from_raw(b"\0\1", "BOOL", [2], "x").tolist() == [False, True]
    with pytest.raises(InputError, match="neither 0 nor 1"):
        tensors.from_raw(b"\0\2", "BOOL", [2], "x")


def test_shape_product_does_not_wrap() -> None:
    """2^32 x 2^32 elements are not 0 elements."""
    with pytest.raises(InputError, match="raw bytes do not fit"):
        tensors.from_raw(b"", "UINT8", [2**32, 2**32], "x")


def test_strings_are_bounded() -> None:
    """A BYTES tensor of too many elements is refused before one of them is made."""
    count = tensors.MAX_STRINGS + 1
    with pytest.raises(InputError, match="too many"):
        tensors.from_raw(b"\0" * 4 * count, "BYTES", [count], "x")
    contents = InferTensorContents(bytes_contents=[b""] * count)
    with pytest.raises(InputError, match="too many"):
        tensors.from_typed(contents, "BYTES", [count], "x")


@pytest.mark.parametrize("name", FIXED)
def test_datatype_of(name: str) -> None:
    """Every array type finds its name again, in either byte order."""
    dtype = tensors.DATATYPES[name].array
    expected = "FP32" if name == "BF16" else name
    assert tensors.datatype_of(np.zeros(2, dtype)) == expected
    assert tensors.datatype_of(np.zeros(2, dtype.newbyteorder(">"))) == expected


def test_text_and_complex() -> None:
    """Text is sent as UTF-8 BYTES; what the protocol cannot carry is refused."""
    text = np.array(["stop", "gehö"])
    assert tensors.datatype_of(text) == "BYTES"
    raw = tensors.to_raw(text, "BYTES")
    assert tensors.from_raw(raw, "BYTES", [2], "x").tolist() == [b"stop", "gehö".encode()]
    with pytest.raises(InputError, match="complex128"):
        tensors.datatype_of(np.zeros(1, complex))


def test_big_endian_arrays() -> None:
    """An array in the other byte order is sent little-endian."""
    array = np.arange(4, dtype=">i4")
    assert tensors.to_raw(array, "INT32") == np.arange(4, dtype="<i4").tobytes()
