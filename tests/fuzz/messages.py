"""Changes to protobuf messages by their descriptors: any field, any depth, still a message."""

import random
from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor as Field

from tests.fuzz.mutate import TEXTS, WIDE, mutate

LONGEST = 1 << 17  # bytes of a message
FLOATS = (0.0, 0.5, 1.0, 1.01, -0.1, 255.0, float("nan"), float("inf"), 3e38, 1e-45)
INT32, INT64 = (-(2**31), 2**31 - 1), (-(2**63), 2**63 - 1)
RANGES = {
    Field.CPPTYPE_INT32: INT32,
    Field.CPPTYPE_ENUM: INT32,
    Field.CPPTYPE_INT64: INT64,
    Field.CPPTYPE_UINT32: (0, 2**32 - 1),
    Field.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def shaken(message_class: Any, data: bytes, rng: random.Random, words: Sequence[bytes]) -> bytes:
    """The message in `data` with a few of its fields changed; an empty one where it is none."""
    try:
        message = message_class.FromString(data)
    except Exception:
        message = message_class()
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        _shake(message, rng, words)
    changed: bytes = message.SerializeToString()
    return changed if len(changed) <= LONGEST else data


def _shake(message: Any, rng: random.Random, words: Sequence[bytes]) -> None:
    set_fields = [field for field, _ in message.ListFields()]
    fields = message.DESCRIPTOR.fields
    if not fields:
        return
    field = rng.choice(set_fields) if set_fields and rng.random() < 0.8 else rng.choice(fields)
    if rng.random() < 0.05:
        message.ClearField(field.name)
    elif _is_map(field):
        _shake_map(getattr(message, field.name), field, rng, words)
    elif field.is_repeated:
        _shake_list(getattr(message, field.name), field, rng, words)
    elif field.cpp_type == Field.CPPTYPE_MESSAGE:
        getattr(message, field.name).SetInParent()
        _shake(getattr(message, field.name), rng, words)
    else:
        setattr(message, field.name, _value(field, getattr(message, field.name), rng, words))


def _is_map(field: Any) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


def _shake_map(entries: Any, field: Any, rng: random.Random, words: Sequence[bytes]) -> None:
    key = _value(field.message_type.fields_by_name["key"], "", rng, words)
    value = field.message_type.fields_by_name["value"]
    if value.cpp_type == Field.CPPTYPE_MESSAGE:
        _shake(entries[key], rng, words)
    else:
        entries[key] = _value(value, "", rng, words)


def _shake_list(items: Any, field: Any, rng: random.Random, words: Sequence[bytes]) -> None:
    choice = rng.random()
    nested = field.cpp_type == Field.CPPTYPE_MESSAGE
    if items and choice < 0.15:
        del items[rng.randrange(len(items))]
    elif items and choice < 0.3:
        items.extend([items[rng.randrange(len(items))]] * (1 << rng.randrange(8)))
    elif not items or choice < 0.4:
        if nested:
            _shake(items.add(), rng, words)
        else:
            items.append(_value(field, None, rng, words))
    elif nested:
        _shake(items[rng.randrange(len(items))], rng, words)
    else:
        at = rng.randrange(len(items))
        items[at] = _value(field, items[at], rng, words)


def _value(field: Any, old: Any, rng: random.Random, words: Sequence[bytes]) -> Any:
    kind = field.cpp_type
    if kind in RANGES:
        low, high = RANGES[kind]
        near = int(old or 0) + rng.choice((-1, 1, 2))
        far = rng.choice((*WIDE, 3, 4, 8)) * rng.choice((1, 1, -1))
        value = near if rng.random() < 0.4 else far
        return min(max(value, low), high)
    if kind in (Field.CPPTYPE_FLOAT, Field.CPPTYPE_DOUBLE):
        return rng.choice(FLOATS)
    if kind == Field.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if field.type == Field.TYPE_STRING:
        return _text(old, rng, words)
    return mutate(old or b"", rng, words, [old or b"x"])


def _text(old: Any, rng: random.Random, words: Sequence[bytes]) -> str:
    if old and rng.random() < 0.3:
        return (str(old) * rng.choice((2, 50)))[: rng.choice((3, 300, 5000))]
    word = rng.choice(words) if words and rng.random() < 0.8 else rng.choice(TEXTS)
    return word.decode("utf-8", "replace")
