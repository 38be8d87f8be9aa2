"""Changes that keep a container whole: JSON values, lines of text, members of a ZIP."""

import io
import json
import random
import zipfile
from collections.abc import Sequence
from typing import Any

from tests.fuzz.mutate import TEXTS, WIDE, mutate

ODD: tuple[Any, ...] = (
    *(None, True, [], {}, "", "x" * 300, "../x", "\0", "\ud800", 1.5, 1e308, float("nan")),
    *(*WIDE, -1, -(2**63), 10**40, [[]], {"a": {}}, ["a", "a"]),
)


def change_json(data: bytes, rng: random.Random) -> bytes | None:
    """Another value somewhere in a JSON document; None where it is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return json.dumps(_changed(value, rng)).encode()


def _changed(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        choice = rng.random()
        if choice < 0.1:
            return {k: v for k, v in value.items() if k != key}
        if choice < 0.2:
            return {**value, rng.choice(("x", "", key + "x")): value[key]}
        return {**value, key: _changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        choice = rng.random()
        if choice < 0.15:
            return value[:at] + value[at + 1 :]
        if choice < 0.3:
            return value + [value[at]] * (1 << rng.randrange(6))
        return [*value[:at], _changed(value[at], rng), *value[at + 1 :]]
    if isinstance(value, str) and rng.random() < 0.5:
        text = mutate(value.encode("utf-8", "surrogatepass"), rng, (), ())
        return text.decode("utf-8", "replace")
    if isinstance(value, int) and rng.random() < 0.5:
        return value + rng.choice((-1, 1, 2, -value))
    return rng.choice(ODD)


def change_lines(data: bytes, rng: random.Random, words: Sequence[bytes]) -> bytes:
    """Lines dropped, repeated, moved, or their right-hand side replaced."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    choice = rng.random()
    if choice < 0.15:
        del lines[at]
    elif choice < 0.3:
        lines.insert(rng.randrange(len(lines)), lines[at])
    elif choice < 0.4:
        lines[at:at] = [rng.choice(words) if words else b""]
    elif choice < 0.7 and b"=" in lines[at]:
        left = lines[at].split(b"=")[0]
        others = [line.split(b"=", 1)[1] for line in lines if b"=" in line]
        lines[at] = left + b"=" + rng.choice((*others, *TEXTS, *words[-20:]))
    else:
        lines[at] = mutate(lines[at], rng, words, lines)
    return b"\n".join(lines)


def change_zip(data: bytes, rng: random.Random, words: Sequence[bytes]) -> bytes | None:
    """One member changed, renamed, dropped or repeated, its checksum right; None for no ZIP."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as source:
            if sum(info.file_size for info in source.infolist()) > 1 << 18:
                return None
            members = [(info.filename, source.read(info)) for info in source.infolist()]
    except Exception:
        return None
    if not members:
        return None
    at = rng.randrange(len(members))
    name, body = members[at]
    choice = rng.random()
    if choice < 0.1:
        del members[at]
    elif choice < 0.2:
        members.append((name.replace("a", "b", 1), body))
    else:
        members[at] = (name, mutate(body, rng, words, ()))
    file = io.BytesIO()
    kind = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(file, "w", kind) as target:
        for name, body in members:
            target.writestr(name, body)
    return file.getvalue()
