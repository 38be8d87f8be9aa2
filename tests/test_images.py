"""Images: any declared layout becomes pixels in [0, 1]; hostile pictures are refused unopened."""

import io
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from guard.errors import ConfigError, InputError
from guard.images import (
    COST,
    COST_OF_ONE_PASS,
    FREE_BYTES,
    PixelSpec,
    affordable_pixels,
    decode_image,
    image_size,
    resize,
    to_pixels,
)
from tests.gateway.malformed import bomb

SPEC = PixelSpec((3, 4, 5))
PIXELS = np.linspace(0, 1, 2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)


def _file(image: Any, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
        file, form, **options
    )
    return file.getvalue()


def _noise(height: int, width: int, channels: int = 3) -> Any:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def test_pixels_are_not_copied() -> None:
    """What already is float32 NCHW in [0, 1] comes back as the same memory."""
    assert np.shares_memory(to_pixels(PIXELS, SPEC), PIXELS)
    frozen = np.frombuffer(PIXELS.tobytes(), np.float32).reshape(PIXELS.shape)
    assert np.shares_memory(to_pixels(frozen, SPEC), frozen)


def test_layouts() -> None:
    """NHWC, CHW and HWC become the same NCHW."""
    last = PIXELS.transpose(0, 2, 3, 1)
    assert np.array_equal(to_pixels(last, PixelSpec((3, 4, 5), "NHWC")), PIXELS)
    assert np.array_equal(to_pixels(PIXELS[1], PixelSpec((3, 4, 5), "CHW")), PIXELS[1:])
    assert np.array_equal(to_pixels(last[1], PixelSpec((3, 4, 5), "HWC")), PIXELS[1:])


@pytest.mark.parametrize("kind", ["u1", "u2", "i4", "i8"])
def test_integers(kind: str) -> None:
    """Integers are 0 to 255 unless a scale says otherwise."""
    array = np.arange(120).reshape(2, 3, 4, 5).astype(kind)
    expected = array.astype(np.float32) / np.float32(255)
    np.testing.assert_allclose(to_pixels(array, SPEC), expected, rtol=1e-6)
    ten_bits = PixelSpec((3, 4, 5), scale=1023.0)
    assert to_pixels(np.full((1, 3, 4, 5), 1023, "u2"), ten_bits).max() == 1.0


@settings(deadline=None)
@given(
    arrays.arrays(np.float32, (2, 3, 4, 5), elements=st.floats(0, 1, width=32)),
    st.sampled_from([1.0, 255.0]),
    st.sampled_from(["f4", "f8"]),
)
def test_normalisation_is_undone(pixels: Any, scale: float, kind: str) -> None:
    """mean, std and scale as clients apply them are undone: pixels come back to 1e-5."""
    mean = np.array([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1) * scale
    std = np.array([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1) * scale
    wire = ((pixels * scale - mean) / std).astype(kind)
    spec = PixelSpec((3, 4, 5), scale=scale, mean=tuple(mean.ravel()), std=tuple(std.ravel()))
    np.testing.assert_allclose(to_pixels(wire, spec), pixels, atol=1e-5)


def test_rounding_is_clipped() -> None:
    """Half a grey level beyond the range is rounding; a whole one is refused."""
    array = PIXELS.copy()
    array[0, 0, 0, 0], array[1, 2, 3, 4] = -0.001, 1.001
    found = to_pixels(array, SPEC)
    assert (found.min(), found.max()) == (0.0, 1.0)
    array[1, 2, 3, 4] = 1.004
    with pytest.raises(InputError, match=r"x: image 1 has pixels outside \[0, 1\].*1\.004"):
        to_pixels(array, SPEC, tensor="x")


@settings(deadline=None)
@given(
    st.sampled_from([np.nan, np.inf, -np.inf]),
    st.sampled_from(["f2", "f4", "f8"]),
    st.integers(0, 119),
    st.sampled_from([SPEC, PixelSpec((3, 4, 5), scale=255.0, mean=(0.5,), std=(-2.0,))]),
)
def test_non_finite(value: float, kind: str, where: int, spec: PixelSpec) -> None:
    """One NaN or infinity anywhere is refused, and the image it is in is named."""
    array = PIXELS.astype(kind)
    array.flat[where] = value
    with pytest.raises(InputError, match=f"image {where // 60} has a value that is not finite"):
        to_pixels(array, spec)


@pytest.mark.parametrize("value", [1e300, -1e300])
def test_float64_overflow(value: float) -> None:
    """A float64 beyond float32's range is out of range, not infinite, and warns of nothing."""
    array = PIXELS.astype(np.float64)
    array[0, 0, 0, 0] = value
    with pytest.raises(InputError, match="outside"):
        to_pixels(array, SPEC)


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(["?", "u1", "i8", "u8", "f2", "f4", "f8", "c8"]),
    arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=6),
    st.data(),
)
def test_any_array(kind: str, shape: tuple[int, ...], data: st.DataObject) -> None:
    """Whatever array comes: float32 (N, C, H, W) in [0, 1], or InputError with its name."""
    array = data.draw(arrays.arrays(kind, data.draw(st.sampled_from([shape, PIXELS.shape]))))
    try:
        found = to_pixels(array, SPEC, tensor="x")
    except InputError as error:
        assert error.tensor == "x"
    else:
        assert found.dtype == np.float32
        assert found.shape == (array.shape[0], 3, 4, 5)
        assert found.min() >= 0
        assert found.max() <= 1


def test_other_sizes() -> None:
    """Another size is refused, or resized where the spec says so; channels never change."""
    larger = np.full((1, 3, 8, 10), 0.5, np.float32)
    with pytest.raises(InputError, match=r"shape \[1, 3, 8, 10\], expected \[N, 3, 4, 5\]"):
        to_pixels(larger, SPEC)
    spec = PixelSpec((3, 4, 5), resize=True, max_pixels=80)
    np.testing.assert_allclose(to_pixels(larger, spec), 0.5, atol=1e-6)
    for shape in ((1, 1, 8, 10), (1, 3, 9, 9)):
        with pytest.raises(InputError, match=r"expected \[N, 3, \*, \*\]"):
            to_pixels(np.zeros(shape, np.float32), spec)


def test_resize_is_pillows() -> None:
    """Shrinking antialiases as Pillow does, image by image, and keeps the channels apart."""
    images = np.random.default_rng(0).random((2, 3, 9, 7), np.float32)
    found = resize(images, (4, 5))
    expected = Image.fromarray(images[1, 2]).resize((5, 4), Image.Resampling.BILINEAR)
    assert np.array_equal(found[1, 2], np.asarray(expected))


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_lossless_pictures(form: str) -> None:
    """A lossless file decodes to exactly its bytes over 255."""
    image = _noise(4, 5)
    found = decode_image(_file(image, form, lossless=True))
    assert np.array_equal(found, image.transpose(2, 0, 1).astype(np.float32) / np.float32(255))


def test_jpeg_and_colours() -> None:
    """JPEG decodes; grey becomes three channels, colour one, opaque RGBA and palettes are read."""
    image = Image.fromarray(_noise(16, 24))
    for mode, form in (("RGB", "JPEG"), ("L", "JPEG"), ("P", "PNG"), ("RGBA", "PNG"), ("1", "PNG")):
        data = _file(image.convert(mode), form)
        assert decode_image(data).shape == (3, 16, 24)
        assert decode_image(data, channels=1, size=(4, 5)).shape == (1, 4, 5)


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"exif": b"Exif\0\0" + b"\xff\xc0" * 99}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"lossless": True, "exif": b"Exif\0\0II*\0"}),
    ],
)
@pytest.mark.parametrize("size", [(1, 1), (300, 200), (5, 1000)])
def test_image_size(form: str, options: dict[str, Any], size: tuple[int, int]) -> None:
    """The header reader agrees with Pillow on every format and flavour."""
    data = _file(Image.new("RGB", size), form, **options)
    assert image_size(data) == (form, *size)


def test_a_bomb_costs_nothing() -> None:
    """A PNG of 18 KB that would decode to 432 MB is refused with less than 1 MB allocated."""
    data = bomb(12_000, 12_000)
    assert len(data) < 50_000
    tracemalloc.start()
    with pytest.raises(InputError, match="12000x12000 pixels are too many"):
        decode_image(data)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_many_pictures_have_one_budget() -> None:
    """Pictures that are each allowed may not together exceed what a request may decode."""
    spec = PixelSpec((3, 4, 5), encoded=True, resize=True, max_pixels=100, max_total_pixels=250)
    data = _file(_noise(10, 10))
    assert to_pixels(np.array([data] * 2, object), spec).shape == (2, 3, 4, 5)
    with pytest.raises(InputError, match="x: 300 pixels in all"):
        to_pixels(np.array([data] * 3, object), spec, tensor="x")
    with pytest.raises(InputError, match="10x11 pixels are too many") as caught:
        to_pixels(np.array([_file(_noise(11, 10))], object), spec, tensor="x")
    assert caught.value.tensor == "x"


def test_encoded_batches() -> None:
    """[N] and [N, 1] of BYTES are N pictures; pixels for pictures, and back, are refused."""
    image = _noise(4, 5)
    files = np.array([_file(image)] * 2, object)
    spec = PixelSpec((3, 4, 5), encoded=True)
    for shape in ((2,), (2, 1)):
        assert to_pixels(files.reshape(shape), spec).shape == (2, 3, 4, 5)
    with pytest.raises(InputError, match=r"expected \[N\]"):
        to_pixels(files.reshape(1, 2), spec)
    with pytest.raises(InputError, match="encoded pictures"):
        to_pixels(PIXELS, spec)
    with pytest.raises(InputError, match="not BYTES"):
        to_pixels(files, SPEC)
    with pytest.raises(InputError, match="picture 0: 5x4 pixels, expected 4x5"):
        to_pixels(files, PixelSpec((3, 5, 4), encoded=True))


@settings(deadline=None, max_examples=400)
@given(
    st.sampled_from(["PNG", "JPEG", "WEBP"]),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4),
    st.integers(0, 2000),
    st.binary(max_size=8),
)
def test_broken_files(form: str, changes: Any, end: int, tail: bytes) -> None:
    """A file with bytes changed, cut off or appended decodes within its size or is InputError."""
    data = bytearray(_file(_noise(8, 8), form))
    for position, value in changes:
        data[position % len(data)] = value
    broken = bytes(data[: max(end, 1)]) + tail
    try:
        found = decode_image(broken, max_pixels=4096)
    except InputError as error:
        assert str(error).startswith("image")
    else:
        assert found.shape[1] * found.shape[2] <= 4096


@settings(deadline=None, max_examples=300)
@given(st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF"]), st.binary())
def test_junk(start: bytes, rest: bytes) -> None:
    """Junk behind a good signature is InputError, nothing else."""
    with pytest.raises(InputError):
        decode_image(start + rest)


def test_long_headers_are_not_walked_for_ever() -> None:
    """A JPEG of a million fill bytes is refused after a few thousand."""
    with pytest.raises(InputError, match="header is not complete"):
        image_size(b"\xff\xd8" + b"\xff" * 1_000_000 + b"\xff\xd9")


def test_too_many_scans() -> None:
    """A progressive JPEG of many scans, each of which costs a pass over all pixels, is refused."""
    data = _file(_noise(8, 8), "JPEG", progressive=True)
    with pytest.raises(InputError, match="scans"):
        decode_image(data[:-2] + b"\xff\xda" * 99 + b"\xff\xd9")


def test_two_sizes() -> None:
    """A WebP whose canvas and frame disagree is not decoded."""
    data = bytearray(_file(Image.new("RGB", (8, 8)), "WEBP", exif=b"Exif\0\0II*\0"))
    data[24:27] = struct.pack("<I", 99)[:3]
    with pytest.raises(InputError):
        decode_image(bytes(data))


def test_impossible_specs() -> None:
    """A spec that cannot be right is a ConfigError when it is made."""
    for options in ({"mean": (0.5, 0.5)}, {"std": (0.0,)}, {"scale": 0.0}):
        with pytest.raises(ConfigError):
            PixelSpec((3, 4, 5), **options)
    with pytest.raises(ConfigError, match="1 or 3 channels"):
        PixelSpec((2, 4, 5), encoded=True)


def _pays(form: str, side: int, **options: Any) -> bool:
    """Whether a picture of one colour of so many pixels is decoded."""
    data = _file(Image.new("RGB", (side, side)), form, **options)
    try:
        return decode_image(data, size=(8, 8)).shape == (3, 8, 8)
    except InputError as error:
        assert "pixels are too many for" in str(error)
        return False


@pytest.mark.parametrize(
    ("form", "side", "options"),
    [
        ("PNG", 1825, {}),
        ("JPEG", 2449, {}),
        ("JPEG", 1651, {"progressive": True}),
        ("WEBP", 1328, {"lossless": True}),
    ],
)
def test_pixels_are_paid_for_with_bytes(form: str, side: int, options: dict[str, Any]) -> None:
    """Of what costs nothing to send, only as much is decoded as costs little to hold."""
    assert _pays(form, side, **options)
    assert not _pays(form, side + 1, **options)


def test_more_bytes_pay_for_more_pixels() -> None:
    """A picture that was costly to send may be as large as `max_pixels` says."""
    data = _file(_noise(1900, 1900), "PNG")
    assert decode_image(data, size=(8, 8)).shape == (3, 8, 8)


def test_a_scan_that_lacks_a_colour_is_no_single_pass() -> None:
    """A JPEG in several scans costs what a progressive one costs, whatever its frame says."""
    data = bytearray(_file(_noise(8, 8), "JPEG"))
    assert affordable_pixels("JPEG", bytes(data)) == FREE_BYTES // COST_OF_ONE_PASS
    at = data.index(b"\xff\xda")
    data[at + 4] = 1
    assert affordable_pixels("JPEG", bytes(data)) == FREE_BYTES // COST["JPEG"]
