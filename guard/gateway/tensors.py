"""One tensor, wire to numpy and back: every datatype of the protocol in both forms of contents.

Raw form: one little-endian, row-major buffer; each BYTES element behind its length in four bytes.
Typed form: a repeated field per family of types; FP16 and BF16 have none.
A caller's shape is never trusted: its product is a Python integer and is compared with the bytes
that really arrived before anything is allocated. Every failure is an InputError that names the
tensor.
"""

import math
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from guard.errors import InputError
from guard.gateway.protocol import Message

Array = NDArray[Any]
MAX_RANK = 16
MAX_STRINGS = 65_536  # elements of one BYTES tensor; each costs a Python object


class Datatype(NamedTuple):
    """How one datatype of the protocol is stored."""

    wire: np.dtype[Any]  # of the raw buffer; object for BYTES
    array: np.dtype[Any]  # what the caller gets: BF16 becomes float32
    field: str  # of InferTensorContents; empty: raw form only
    typed: np.dtype[Any] | None  # of that field's numbers


def _datatype(wire: str, field: str, typed: str | None, array: str | None = None) -> Datatype:
    return Datatype(
        np.dtype(wire), np.dtype(array or wire), field, np.dtype(typed) if typed else None
    )


DATATYPES: dict[str, Datatype] = {
    "BOOL": _datatype("?", "bool_contents", "?"),
    "UINT8": _datatype("u1", "uint_contents", "<u4"),
    "UINT16": _datatype("<u2", "uint_contents", "<u4"),
    "UINT32": _datatype("<u4", "uint_contents", "<u4"),
    "UINT64": _datatype("<u8", "uint64_contents", "<u8"),
    "INT8": _datatype("i1", "int_contents", "<i4"),
    "INT16": _datatype("<i2", "int_contents", "<i4"),
    "INT32": _datatype("<i4", "int_contents", "<i4"),
    "INT64": _datatype("<i8", "int64_contents", "<i8"),
    "FP16": _datatype("<f2", "", None),
    "BF16": _datatype("<u2", "", None, "<f4"),
    "FP32": _datatype("<f4", "fp32_contents", "<f4"),
    "FP64": _datatype("<f8", "fp64_contents", "<f8"),
    "BYTES": _datatype("O", "bytes_contents", None),
}
_NAMES = {
    entry.array: name
    for name, entry in reversed(DATATYPES.items())
    if name not in ("BF16", "BYTES")
}


def datatype_of(array: Array) -> str:
    """The protocol's name for an array's type; InputError where it has none."""
    if array.dtype.kind in "OSU":
        return "BYTES"
    try:
        return _NAMES[array.dtype.newbyteorder("<")]
    except KeyError:
        raise InputError(f"arrays of {array.dtype} cannot be sent") from None


def has_typed_form(array: Array) -> bool:
    """Whether an array's type has a field of its own in InferTensorContents."""
    return bool(DATATYPES[datatype_of(array)].field)


def datatype(name: str, tensor: str) -> Datatype:
    """The entry of DATATYPES; InputError for an unknown `name`."""
    try:
        return DATATYPES[name]
    except KeyError:
        raise InputError(f"{tensor}: unknown datatype {name[:32]!r}", tensor=tensor) from None


def element_count(shape: Sequence[int], tensor: str) -> int:
    """How many elements a shape claims, in unbounded integers; every dimension must be positive."""
    if len(shape) > MAX_RANK:
        raise InputError(f"{tensor}: {len(shape)} dimensions are too many", tensor=tensor)
    if shape and min(shape) <= 0:
        shown = ", ".join(map(str, shape))
        message = f"{tensor}: shape [{shown}] has a dimension that is not positive"
        raise InputError(message, tensor=tensor)
    return math.prod(shape)


def check_raw(data_size: int, datatype_name: str, shape: Sequence[int], tensor: str) -> None:
    """Compare the bytes that arrived with those that datatype and shape claim. Reads no element."""
    count = element_count(shape, tensor)
    if datatype_name == "BYTES":
        if data_size < 4 * count:
            raise _size_error(tensor, datatype_name, shape, data_size, f"at least {4 * count}")
        return
    expected = count * datatype(datatype_name, tensor).wire.itemsize
    if data_size != expected:
        raise _size_error(tensor, datatype_name, shape, data_size, str(expected))


def _size_error(
    tensor: str, datatype_name: str, shape: Sequence[int], size: int, expected: str
) -> InputError:
    shown = ", ".join(map(str, shape))
    return InputError(
        f"{tensor}: {size} raw bytes do not fit {datatype_name} [{shown}], which takes {expected}",
        tensor=tensor,
    )


def from_raw(data: bytes, datatype_name: str, shape: Sequence[int], tensor: str) -> Array:
    """A raw buffer as an array of `shape`: a read-only view of it, except for BF16 and BYTES."""
    entry = datatype(datatype_name, tensor)
    check_raw(len(data), datatype_name, shape, tensor)
    if datatype_name == "BYTES":
        return _strings(_split(data, math.prod(shape), tensor), shape, tensor)
    if datatype_name == "BOOL" and np.frombuffer(data, np.uint8).max() > 1:
        raise InputError(f"{tensor}: a BOOL byte is neither 0 nor 1", tensor=tensor)
    flat = np.frombuffer(data, entry.wire)
    if datatype_name == "BF16":
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
    return flat.reshape(tuple(shape))


def _split(data: bytes, count: int, tensor: str) -> list[bytes]:
    _check_strings(count, tensor)
    elements = []
    start, end = 0, len(data)
    for index in range(count):
        if start + 4 > end:
            message = f"{tensor}: truncated before the length of BYTES element {index}"
            raise InputError(message, tensor=tensor)
        (length,) = struct.unpack_from("<I", data, start)
        start += 4 + length
        if start > end:
            message = f"{tensor}: BYTES element {index} claims {length} bytes, truncated"
            raise InputError(message, tensor=tensor)
        elements.append(data[start - length : start])
    if start != end:
        message = f"{tensor}: {end - start} bytes left over after {count} BYTES elements"
        raise InputError(message, tensor=tensor)
    return elements


def _check_strings(count: int, tensor: str) -> None:
    if count > MAX_STRINGS:
        message = f"{tensor}: {count} BYTES elements are too many, at most {MAX_STRINGS}"
        raise InputError(message, tensor=tensor)


def _strings(elements: Sequence[bytes], shape: Sequence[int], tensor: str) -> Array:
    _check_strings(len(elements), tensor)
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array.reshape(tuple(shape))


def check_typed(contents: Message, datatype_name: str, shape: Sequence[int], tensor: str) -> None:
    """Demand as many elements as `shape` claims, in the one field that fits the datatype."""
    entry = datatype(datatype_name, tensor)
    count = element_count(shape, tensor)
    if not entry.field:
        message = f"{tensor}: {datatype_name} has no typed contents, send raw_input_contents"
        raise InputError(message, tensor=tensor)
    for field, _ in contents.ListFields():
        if field.name != entry.field:
            message = f"{tensor}: {datatype_name} belongs in {entry.field}, not in {field.name}"
            raise InputError(message, tensor=tensor)
    held = len(getattr(contents, entry.field))
    if held != count:
        shown = ", ".join(map(str, shape))
        message = f"{tensor}: {held} elements in {entry.field}, shape [{shown}] takes {count}"
        raise InputError(message, tensor=tensor)


def from_typed(contents: Message, datatype_name: str, shape: Sequence[int], tensor: str) -> Array:
    """The typed contents as an array of `shape`."""
    check_typed(contents, datatype_name, shape, tensor)
    entry = datatype(datatype_name, tensor)
    values = getattr(contents, entry.field)
    if datatype_name == "BYTES":
        return _strings(list(values), shape, tensor)
    wide = np.array(values, dtype=entry.typed)
    narrow = wide.astype(entry.wire)
    if narrow.dtype != wide.dtype and (narrow != wide).any():
        raise InputError(f"{tensor}: a number does not fit {datatype_name}", tensor=tensor)
    return narrow.reshape(tuple(shape))


def to_raw(array: Array, datatype_name: str) -> bytes:
    """An array's raw buffer. Numbers must already fit the datatype (`astype` beforehand)."""
    if datatype_name == "BYTES":
        return b"".join(struct.pack("<I", len(item)) + item for item in _as_bytes(array))
    if datatype_name == "BF16":
        array = _to_bf16(np.asarray(array, np.float32))
    return np.ascontiguousarray(array, dtype=DATATYPES[datatype_name].wire).tobytes()


def _to_bf16(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    bits = array.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16  # to nearest, ties to even
    quiet = (bits >> 16) | 0x40  # rounding could turn a NaN into infinity
    return np.where(np.isnan(array), quiet, rounded).astype(np.uint16)


def to_typed(contents: Message, array: Array, datatype_name: str, tensor: str) -> None:
    """Fill empty typed `contents` from an array."""
    entry = datatype(datatype_name, tensor)
    if not entry.field:
        raise InputError(f"{tensor}: {datatype_name} has no typed contents", tensor=tensor)
    flat = _as_bytes(array) if datatype_name == "BYTES" else np.ravel(array).tolist()
    getattr(contents, entry.field).extend(flat)


def _as_bytes(array: Array) -> list[bytes]:
    flat = np.ravel(array).tolist()
    return [item.encode() if isinstance(item, str) else bytes(item) for item in flat]
