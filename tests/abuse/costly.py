"""Requests that are made to cost memory, as bytes: what a client library would never send."""

import io
import struct
import zlib
from collections.abc import Callable, Mapping

from PIL import Image

from tests.gateway.malformed import Target as Aim
from tests.gateway.malformed import bomb, encoded, valid

AIM = Aim("pixels", shape=(3, 8, 8))
PICTURES = Aim("pictures", shape=(3, 8, 8))
MEGABYTE = 1 << 20
MANY = 300_000
SIDE = 4096  # the largest that `max_pixels` allows by default
LARGE = 2600  # costs more than 32 MB in every format, if it is decoded


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def field(number: int, body: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(body)) + body


def tensor(
    name: bytes = b"images",
    datatype: bytes = b"FP32",
    shape: tuple[int, ...] = (),
    more: bytes = b"",
) -> bytes:
    """One input of a request."""
    body = field(1, name) + field(2, datatype) + field(3, b"".join(map(varint, shape)))
    return field(5, body + more)


def typed(number: int, datatype: bytes, size: int, *shape: int, model: bytes = b"resized") -> bytes:
    """A request whose typed contents are `size` zero bytes in this field."""
    contents = field(5, field(number, bytes(size)))
    return field(1, model) + tensor(datatype=datatype, shape=shape, more=contents)


def picture(width: int, height: int, form: str = "PNG", mode: str = "RGB", **how: object) -> bytes:
    """One picture of one colour."""
    file = io.BytesIO()
    Image.new(mode, (width, height), "white").save(file, form, **how)
    return file.getvalue()


def pictures(*files: bytes) -> bytes:
    """A request that carries pictures."""
    return bytes(encoded(PICTURES, *files).SerializeToString())


def chunked(name: bytes, start: bytes, size: int, times: int = 1) -> bytes:
    """A small PNG with a compressed chunk of `size` zeros, several times."""
    body = start + zlib.compress(bytes(size), 9)
    chunk = struct.pack(">I", len(body)) + name + body
    chunk += struct.pack(">I", zlib.crc32(name + body))
    whole = picture(8, 8)
    return whole[:33] + chunk * times + whole[33:]


def nested(depth: int) -> bytes:
    """A parameter whose value is an unknown message inside another, so many times."""
    body = b""
    for _ in range(depth):
        body = field(15, body)
    return field(4, field(1, b"p") + field(2, body))


def _good() -> bytes:
    return bytes(valid(AIM).SerializeToString())


def _numbered(number: int, count: int, value: bytes) -> bytes:
    return b"".join(field(number, field(1, b"%06d" % n) + value) for n in range(count))


NAMED: Mapping[str, Callable[[], bytes]] = {
    # pixels
    "an honest request": lambda: bytes(valid(AIM, 250).SerializeToString()),
    "packed integers that fit": lambda: typed(2, b"INT32", MEGABYTE, 1, 4, 512, 512),
    "packed bytes that fit": lambda: typed(4, b"UINT8", 3 * 512 * 512, 1, 3, 512, 512),
    "packed long integers": lambda: typed(3, b"INT64", MEGABYTE, MEGABYTE),
    "packed booleans": lambda: typed(1, b"BOOL", MEGABYTE, MEGABYTE),
    "packed floats that fit": lambda: typed(6, b"FP32", 12 * 256 * 256, 1, 3, 256, 256),
    "packed integers of another model": lambda: typed(
        2, b"INT32", MEGABYTE, MEGABYTE, model=b"pixels"
    ),
    "empty strings, typed": lambda: field(1, b"pictures")
    + tensor(datatype=b"BYTES", shape=(MANY,), more=field(5, b"\x42\0" * MANY)),
    "empty strings, raw": lambda: field(1, b"pictures")
    + tensor(datatype=b"BYTES", shape=(MANY,)) + field(7, bytes(4 * MANY)),
    "65,536 empty strings": lambda: field(1, b"pictures")
    + tensor(datatype=b"BYTES", shape=(65_536,)) + field(7, bytes(4 * 65_536)),
    # counts
    "empty inputs": lambda: field(1, b"pixels") + b"\x2a\0" * MANY,
    "named inputs": lambda: field(1, b"pixels") + tensor(b"x") * (MANY // 3),
    "empty outputs": lambda: _good() + b"\x32\0" * MANY,
    "raw buffers": lambda: _good() + b"\x3a\0" * MANY,
    "dimensions": lambda: field(1, b"pixels") + tensor(shape=(1,) * MANY),
    "parameters": lambda: _good() + _numbered(4, MANY // 3, field(2, b"\x10\1")),
    "parameters of one name": lambda: _good() + b"\x22\x04\x0a\0\x12\0" * (MANY // 2),
    "parameters of an output": lambda: _good()
    + field(6, field(1, b"logits") + _numbered(2, MANY // 3, field(2, b"\x10\1"))),
    "unknown fields": lambda: _good() + b"\xf8\x01\x01" * MANY,
    "256 outputs of 250 letters": lambda: _good()
    + b"".join(field(6, field(1, b"%0250d" % n)) for n in range(256)),
    # depth and length
    "parameters 90 deep": lambda: field(1, b"pixels") + nested(90),
    "parameters 3,000 deep": lambda: field(1, b"pixels") + nested(3000),
    "unknown groups, a million deep": lambda: field(1, b"pixels") + b"\x7b" * MEGABYTE,
    "a model's name of 4 MB": lambda: field(1, b"m" * (4 * MEGABYTE)),
    "a tensor's name of 4 MB": lambda: field(1, b"pixels") + tensor(b"t" * (4 * MEGABYTE)),
    "a datatype of 4 MB": lambda: field(1, b"pixels") + tensor(datatype=b"F" * (4 * MEGABYTE)),
    "an id of 4 MB": lambda: field(3, b"i" * (4 * MEGABYTE)) + _good(),
    # pictures
    "a black PNG": lambda: pictures(bomb(SIDE, SIDE)),
    "four black PNG": lambda: pictures(*[bomb(SIDE, SIDE)] * 4),
    "a grey PNG": lambda: pictures(picture(LARGE, LARGE, mode="L")),
    "a palette PNG": lambda: pictures(picture(LARGE, LARGE, mode="P")),
    "a transparent PNG": lambda: pictures(picture(LARGE, LARGE, mode="RGBA")),
    "an RGB PNG": lambda: pictures(picture(LARGE, LARGE)),
    "a JPEG": lambda: pictures(picture(LARGE, LARGE, "JPEG")),
    "a progressive JPEG": lambda: pictures(
        picture(LARGE, LARGE, "JPEG", progressive=True, subsampling=0)
    ),
    "a WebP": lambda: pictures(picture(LARGE, LARGE, "WEBP", lossless=True)),
    # just small enough to be decoded
    "a decoded PNG": lambda: pictures(picture(1820, 1820, mode="RGBA")),
    "a decoded JPEG": lambda: pictures(picture(2440, 2440, "JPEG")),
    "a decoded grey JPEG": lambda: pictures(picture(2440, 2440, "JPEG", "L")),
    "a decoded progressive JPEG": lambda: pictures(
        picture(1650, 1650, "JPEG", progressive=True, subsampling=0)
    ),
    "a decoded WebP": lambda: pictures(picture(1320, 1320, "WEBP")),
    "a decoded lossless WebP": lambda: pictures(picture(1320, 1320, "WEBP", lossless=True)),
    "a PNG with 400 MB of text": lambda: pictures(chunked(b"zTXt", b"t\0\0", 64 << 20, 6)),
    "a PNG with a profile of 64 MB": lambda: pictures(chunked(b"iCCP", b"p\0\0", 64 << 20)),
}  # fmt: skip
