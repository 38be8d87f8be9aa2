"""Picture files: the gateway's reader, and that of data sets."""

import io
import random
import struct
import zlib
from collections.abc import Hashable

import numpy as np
from PIL import Image

from guard.data.picture import decode
from guard.errors import InputError
from guard.images import decode_image, image_size
from tests.fuzz.mutate import mutate
from tests.fuzz.target import Target, demand
from tests.gateway.malformed import bomb

MAX_PIXELS = 1 << 16
WORDS = (
    *(b"IHDR", b"IDAT", b"IEND", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"iCCP", b"zTXt"),
    *(b"eXIf", b"iTXt", b"gAMA", b"RIFF", b"WEBP", b"VP8 ", b"VP8L", b"VP8X", b"ANIM", b"ALPH"),
    *(b"\xff\xd8", b"\xff\xd9", b"\xff\xda", b"\xff\xc0", b"\xff\xc2", b"\xff\xc4", b"\xff\xdb"),
    *(b"\xff\xe0", b"\xff\xe1", b"\xff\xe2ICC_PROFILE\0", b"\xff\xeeAdobe", b"Exif\0\0", b"MPF\0"),
    *(b"\x89PNG\r\n\x1a\n", b"P6 8 8 255\n", b"BM", b"JFIF\0"),
)


class Pictures(Target):
    """One file, as PNG, JPEG or WebP in a request and as a file of a data set."""

    name = "pictures"
    errors = (InputError,)
    words = WORDS
    strict = True
    good = 16

    def seeds(self) -> list[bytes]:
        """Small pictures of every format and mode, and a bomb."""
        good = [
            ("PNG", "RGB"), ("PNG", "L"), ("PNG", "P"), ("PNG", "1"), ("PNG", "RGBA"),
            ("PNG", "LA"), ("PNG", "I;16"), ("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"),
            ("WEBP", "RGB"), ("WEBP", "RGBA"), ("BMP", "RGB"), ("PPM", "RGB"), ("PPM", "L"),
        ]  # fmt: skip
        found = [_file(form, mode) for form, mode in good]
        found += [_file("JPEG", "RGB", progressive=True), _file("WEBP", "RGB", lossless=True)]
        frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (0, 200)]
        for form in ("PNG", "WEBP"):
            file = io.BytesIO()
            frames[0].save(file, form, save_all=True, append_images=frames[1:])
            found.append(file.getvalue())
        return [*found, bomb(5000, 5000)]

    def mutate(self, data: bytes, rng: random.Random) -> bytes | None:
        """A PNG whose chunks still carry the right checksums; nothing for the others."""
        if data[:4] != b"\x89PNG":
            return None
        chunks = _chunks(data)
        if not chunks:
            return None
        at = rng.randrange(len(chunks))
        name, body = chunks[at]
        choice = rng.random()
        if choice < 0.15:
            chunks[at:at] = [chunks[rng.randrange(len(chunks))]]
        elif choice < 0.3:
            chunks[at] = (rng.choice(WORDS[:12]), body)
        elif name == b"IDAT" and choice < 0.6:
            chunks[at] = (name, zlib.compress(mutate(_inflated(body), rng, (), ())))
        else:
            chunks[at] = (name, mutate(body, rng, WORDS, ()))
        return data[:8] + b"".join(_chunk(name, body) for name, body in chunks)

    def run(self, data: bytes) -> Hashable:
        """Both readers; what both take they agree on."""
        refusal: InputError | None = None
        try:
            kind, width, height = image_size(data)
            pixels = decode_image(data, max_pixels=MAX_PIXELS)
            demand(pixels.shape == (3, height, width), "a picture of another size")
            demand(bool((pixels >= 0).all() and (pixels <= 1).all()), "a pixel outside [0, 1]")
            small = decode_image(data, max_pixels=MAX_PIXELS, size=(8, 8), channels=1)
            demand(small.shape == (1, 8, 8), "a resized picture of another size")
        except InputError as error:
            refusal = error
        if _claims_much(data):  # a data set may hold larger pictures than fuzzing has time for
            if refusal:
                raise refusal
            return kind
        array = decode(data, name="picture", channels=3)
        demand(array.ndim == 3 and array.shape[2] == 3, "not (H, W, 3)")
        if refusal:
            raise refusal
        ours = np.round(pixels.transpose(1, 2, 0) * 255).astype(np.uint8)
        demand(bool((ours == array).all()), "two readers, two pictures")
        return kind, width > 8, height > 8


def _claims_much(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return picture.width * picture.height > MAX_PIXELS
    except Exception:
        return False


def _file(form: str, mode: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((9, 8)).convert(mode).save(file, form, **options)
    return file.getvalue()


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at + 12 <= len(data) and len(found) < 64:
        (length,) = struct.unpack_from(">I", data, at)
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _inflated(body: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(body, 1 << 14)
    except zlib.error:
        return body
