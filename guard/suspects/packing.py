"""A suspect as bytes to be sealed, and back, bit for bit.

Four bytes of length, a header in JSON, then the arrays one after the other, little-endian. Pixels
that are whole grey levels (n / 255) are kept as bytes: a quarter of the size, and exact.
"""

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guard.errors import StoreError
from guard.suspects.record import Floats, Suspect
from guard.verdict import Decision, Verdict

LENGTH = struct.Struct("<I")
ARRAYS = ("image", "evidence", "probabilities", "upstream")
LEVELS = np.float32(255)
MALFORMED = (
    ValueError, KeyError, TypeError, AttributeError, ArithmeticError, struct.error, RecursionError,
)  # fmt: skip
PLAIN = tuple(one.name for one in fields(Suspect) if one.name not in (*ARRAYS, "verdict"))


def pack(suspect: Suspect) -> bytes:
    """All of a suspect."""
    verdict = suspect.verdict
    kept = [
        (name, *_kept(array)) for name in ARRAYS if (array := getattr(suspect, name)) is not None
    ]
    header = {name: getattr(suspect, name) for name in PLAIN} | {
        "verdict": {
            "decision": int(verdict.decision),
            "p_value": verdict.p_value,
            "label": verdict.label,
            "scores": dict(verdict.scores),
            "p_values": dict(verdict.p_values),
            "substituted": verdict.substituted,
            "reason": verdict.reason,
        },
        "arrays": [[name, kind, list(array.shape)] for name, kind, array in kept],
    }
    text = json.dumps(header, separators=(",", ":"), default=np.generic.item).encode()
    return b"".join([LENGTH.pack(len(text)), text, *(array.tobytes() for _, _, array in kept)])


def unpack(raw: bytes, suspect_id: str) -> Suspect:
    """A suspect again; StoreError where the bytes are not one, or are another's."""
    try:
        found = _unpack(raw)
    except MALFORMED:
        raise StoreError(f"suspect {suspect_id}: its record cannot be understood") from None
    if found.id != suspect_id:
        raise StoreError(f"suspect {suspect_id}: its record is another's")
    return found


def _kept(array: Floats) -> tuple[str, NDArray[Any]]:
    """An array as it is kept: bytes where that is exact, else floats."""
    array = np.ascontiguousarray(array, np.float32)
    if array.ndim == 3:
        with np.errstate(invalid="ignore", over="ignore"):
            levels = np.rint(array * LEVELS).astype(np.uint8)
        # Compared as bits: -0.0 and NaN are not what bytes would give back.
        if np.array_equal(_grey(levels).view(np.uint32), array.view(np.uint32)):
            return "levels", levels
    return "float32", array.astype("<f4", copy=False)


def _unpack(raw: bytes) -> Suspect:
    (length,) = LENGTH.unpack_from(raw)
    header = json.loads(raw[LENGTH.size : LENGTH.size + length])
    arrays = dict(_arrays(raw, LENGTH.size + length, header["arrays"]))
    plain: dict[str, Any] = {name: header[name] for name in PLAIN if name in header}
    for name, value in plain.items():  # an older record lacks what came later
        plain[name] = tuple(value) if isinstance(value, list) else value
    return Suspect(
        **plain,
        verdict=_verdict(header["verdict"]),
        image=arrays["image"],
        evidence=arrays["evidence"],
        probabilities=arrays["probabilities"],
        upstream=arrays.get("upstream"),
    )


def _verdict(kept: dict[str, Any]) -> Verdict:
    named = {
        name: {key: float(value) for key, value in kept[name].items()}
        for name in ("scores", "p_values")
    }
    return Verdict(**{**kept, **named, "decision": Decision(kept["decision"])})


def _arrays(raw: bytes, start: int, listed: list[Any]) -> Iterator[tuple[str, Floats]]:
    for name, kind, shape in listed:
        count = math.prod(shape)
        size = count * (1 if kind == "levels" else 4)
        if start + size > len(raw):
            raise ValueError("short")
        if kind == "levels":
            array = _grey(np.frombuffer(raw, np.uint8, count, start).reshape(shape))
        else:
            array = np.frombuffer(raw, "<f4", count, start).reshape(shape).astype(np.float32)
        yield name, array
        start += size
    if start != len(raw):
        raise ValueError("long")


def _grey(levels: NDArray[np.uint8]) -> Floats:
    return np.divide(levels, LEVELS, dtype=np.float32)
