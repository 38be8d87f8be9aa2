"""Changes to bytes: the usual ones of a mutation fuzzer, from one seeded generator."""

import random
import re
import struct
from collections.abc import Sequence

LONGEST = 1 << 16  # bytes of a mutated input
NUMBERS = (0, 1, 2, 7, 16, 127, 128, 255, 256, 32767, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
WIDE = (*NUMBERS, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
TEXTS = (
    *(b"%d" % n for n in (*WIDE, -1, -(2**63), 10**30)),
    *(b"1e400", b"nan", b"-inf", b"null", b"true", b"[]", b"{}", b'""', b"'", b'"', b"\0", b"\n"),
    *(b"../../etc/passwd", b"%s%n", b"\xff\xfe", b"\xed\xa0\x80", "é\u202e\U0001f600".encode()),
)
DIGITS = re.compile(rb"\d+")


def mutate(
    data: bytes, rng: random.Random, words: Sequence[bytes], others: Sequence[bytes]
) -> bytes:
    """One to a few changes; `others` are inputs to take pieces from."""
    changed = bytearray(data)
    for _ in range(1 << rng.randrange(4)):
        rng.choice(CHANGES)(changed, rng, words, others)
    return bytes(changed[:LONGEST])


def _flip(data: bytearray, rng: random.Random, *_: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set(data: bytearray, rng: random.Random, *_: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.randrange(256)


def _number(data: bytearray, rng: random.Random, *_: Sequence[bytes]) -> None:
    """An integer that is often forgotten, in some width and order."""
    size, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
    value = (rng.choice(WIDE) + rng.choice((-1, 0, 0, 1))) % (1 << 8 * size)
    if len(data) >= size:
        at = rng.randrange(len(data) - size + 1)
        data[at : at + size] = value.to_bytes(size, order)


def _float(data: bytearray, rng: random.Random, *_: Sequence[bytes]) -> None:
    value = rng.choice((float("nan"), float("inf"), -float("inf"), 3.4e38, -0.0, 1e-45, 1.01))
    if len(data) >= 4:
        at = rng.randrange(len(data) // 4) * 4
        data[at : at + 4] = struct.pack("<f", value)


def _digits(data: bytearray, rng: random.Random, *_: Sequence[bytes]) -> None:
    """A number in text replaced."""
    found = list(DIGITS.finditer(data))[:200]
    if found:
        place = rng.choice(found)
        data[place.start() : place.end()] = rng.choice(TEXTS)


def _delete(data: bytearray, rng: random.Random, *_: Sequence[bytes]) -> None:
    start, stop = _span(data, rng)
    del data[start:stop]


def _cut(data: bytearray, rng: random.Random, *_: Sequence[bytes]) -> None:
    if data:
        del data[rng.randrange(len(data)) :]


def _repeat(data: bytearray, rng: random.Random, *_: Sequence[bytes]) -> None:
    start, stop = _span(data, rng)
    data[start:start] = data[start:stop] * rng.choice((1, 1, 2, 16))


def _insert(data: bytearray, rng: random.Random, *_: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(1 << rng.randrange(5))


def _word(
    data: bytearray, rng: random.Random, words: Sequence[bytes], _others: Sequence[bytes]
) -> None:
    word = rng.choice(words) if words and rng.random() < 0.8 else rng.choice(TEXTS)
    at = rng.randrange(len(data) + 1)
    stop = at + len(word) if rng.random() < 0.5 else at
    data[at:stop] = word


def _splice(
    data: bytearray, rng: random.Random, _words: Sequence[bytes], others: Sequence[bytes]
) -> None:
    """A piece of another input."""
    if others:
        other = rng.choice(others)
        start, stop = _span(other, rng)
        at = rng.randrange(len(data) + 1)
        end = at + stop - start if rng.random() < 0.5 else at
        data[at:end] = other[start:stop]


def _span(data: bytes | bytearray, rng: random.Random) -> tuple[int, int]:
    if not data:
        return 0, 0
    start = rng.randrange(len(data))
    return start, min(len(data), start + (1 << rng.randrange(9)))


CHANGES = (
    _flip, _flip, _set, _set, _number, _number, _float, _digits, _digits, _delete, _cut, _repeat,
    _insert, _word, _word, _splice, _splice,
)  # fmt: skip
