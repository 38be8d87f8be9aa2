"""JSON that means one thing: no key twice, no NaN, bounded."""

import json
from typing import Any

MAX_BYTES = 8 << 20
MAX_DEPTH = 32


def parse(data: bytes, *, limit: int = MAX_BYTES) -> Any:
    """The value; ValueError for anything that two readers could understand differently."""
    if len(data) > limit:
        raise ValueError(f"it is larger than {limit} bytes")
    try:
        value = json.loads(data.decode(), object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _bounded(value)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} appears twice")
    return found


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _bounded(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        inner = [one.values() if isinstance(one, dict) else one for one in level]
        level = [one for some in inner for one in some if isinstance(one, dict | list)]
        if not level:
            return
    raise ValueError("it is nested too deeply")
