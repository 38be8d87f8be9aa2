"""Pictures and pixel tensors as they arrive, turned into what the defence looks at.

Inside guard pixels are float32 in [0, 1], NCHW. A picture's size is read from its first bytes by
our own reader, before Pillow is asked anything: some of its decoders allocate on opening.
Letters: N images, C H W.
"""

import io
import struct
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from guard.errors import ConfigError, InputError

Floats = NDArray[np.float32]
Layout = Literal["NCHW", "NHWC", "CHW", "HWC"]

MAX_PIXELS = 4096 * 4096
TOLERANCE = 0.5 / 255  # how far outside [0, 1] rounding may put a pixel: half a grey level
MODES = ("1", "L", "LA", "P", "RGB", "RGBA")  # Pillow's, that mean one thing in 8 bits
MAX_SEGMENTS = 4096  # of a JPEG before its first frame
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers of a JPEG's frame header
MAX_SCANS = 64  # of a progressive JPEG; each goes over every pixel
# What decoding may take in memory: so many bytes, or so many times the file's. And what it takes at
# its peak, in bytes a pixel: `tests/abuse/test_memory.py` measures it.
FREE_BYTES, FACTOR = 30_000_000, 95
COST = {"PNG": 9, "JPEG": 11, "WEBP": 17}
COST_OF_ONE_PASS = 5  # of a JPEG whose one scan has everything


@dataclass(frozen=True)
class PixelSpec:
    """How an image tensor on the wire becomes pixels: `p = (x * std + mean) / scale`.

    shape:      (C, H, W) of the defence
    layout:     of the tensor; CHW and HWC are one image without a batch dimension
    scale:      the value that means 1.0 before mean and std are applied; None: 255 for integers, 1
                for floats
    mean, std:  per channel, where the client normalises; torchvision's numbers with scale 1
    resize:     images of another size are resized (bilinear, antialiased) instead of refused
    encoded:    BYTES elements, each a PNG, JPEG or WebP file
    max_pixels: H x W that one image may have before it is resized
    max_total_pixels: the same for all encoded pictures of a request together
    """

    shape: tuple[int, int, int]
    layout: Layout = "NCHW"
    scale: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resize: bool = False
    encoded: bool = False
    max_pixels: int = MAX_PIXELS
    max_total_pixels: int = 4 * MAX_PIXELS

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (0, 1, self.shape[0]):
                raise ConfigError(f"{name}: {len(values)} numbers, {self.shape[0]} channels")
        if 0 in self.std or self.scale == 0:
            raise ConfigError("scale and std must not be zero")
        if self.encoded and self.shape[0] not in (1, 3):
            raise ConfigError(f"encoded pictures have 1 or 3 channels, not {self.shape[0]}")


def to_pixels(array: NDArray[Any], spec: PixelSpec, *, tensor: str = "images") -> Floats:
    """An image tensor in its wire shape as float32 (N, C, H, W) in [0, 1].

    What already is that comes back as the same memory, perhaps read-only. InputError, naming
    `tensor`, for another rank, channel count or size, NaN, infinity, or values outside the range;
    half a grey level beyond it is taken for rounding and clipped.
    """
    if spec.encoded or array.dtype.kind == "O":
        return _decode_all(array, spec, tensor)
    if array.dtype.kind not in "iuf":
        raise InputError(f"{tensor}: {array.dtype} holds no pixels", tensor=tensor)
    images = _as_nchw(array, spec, tensor)
    pixels = _unit(images, spec, tensor)
    if pixels.shape[2:] != spec.shape[1:]:
        pixels = np.clip(resize(pixels, spec.shape[1:]), 0.0, 1.0)
    return pixels


def _as_nchw(array: NDArray[Any], spec: PixelSpec, tensor: str) -> NDArray[Any]:
    C, H, W = spec.shape
    if array.ndim != len(spec.layout):
        expected = _expected(spec)
        message = f"{tensor}: shape {list(array.shape)}, expected {expected} ({spec.layout})"
        raise InputError(message, tensor=tensor)
    images = array if len(spec.layout) == 4 else array[None]
    if spec.layout.endswith("C"):
        images = images.transpose(0, 3, 1, 2)
    pixels = images.shape[2] * images.shape[3]
    fits = (spec.resize and pixels <= spec.max_pixels) or images.shape[2:] == (H, W)
    if images.shape[0] < 1 or images.shape[1] != C or not fits:
        expected = _expected(spec)
        message = f"{tensor}: shape {list(array.shape)}, expected {expected} ({spec.layout})"
        raise InputError(message, tensor=tensor)
    return images


def _expected(spec: PixelSpec) -> str:
    C, H, W = spec.shape
    sizes = {"N": "N", "C": str(C), "H": "*" if spec.resize else str(H)}
    sizes["W"] = "*" if spec.resize else str(W)
    return "[" + ", ".join(sizes[letter] for letter in spec.layout) + "]"


def _unit(images: NDArray[Any], spec: PixelSpec, tensor: str) -> Floats:
    """Undo scale and normalisation, insist on [0, 1]."""
    wide = np.float32 if images.dtype.itemsize < 4 or images.dtype == np.float32 else np.float64
    scale = spec.scale or (1.0 if images.dtype.kind == "f" else 255.0)
    pixels: NDArray[Any] = images.astype(wide, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):  # judged below
        if spec.std:
            pixels = pixels * np.array(spec.std, wide).reshape(1, -1, 1, 1)
        if spec.mean:
            pixels = pixels + np.array(spec.mean, wide).reshape(1, -1, 1, 1)
        if scale != 1.0:
            pixels = pixels / wide(scale)
        low, high = float(pixels.min()), float(pixels.max())  # NaN if there is one
    if not (low >= -TOLERANCE and high <= 1.0 + TOLERANCE):
        raise _range_error(pixels, low, high, tensor)
    if low < 0.0 or high > 1.0:
        pixels = np.clip(pixels, 0.0, 1.0)
    return np.ascontiguousarray(pixels, np.float32)


def _range_error(pixels: NDArray[Any], low: float, high: float, tensor: str) -> InputError:
    broken = ~np.isfinite(pixels)
    if broken.any():
        image = int(np.argwhere(broken)[0][0])
        message = f"{tensor}: image {image} has a value that is not finite (NaN or infinite)"
    else:
        image = int(np.argwhere((pixels < -TOLERANCE) | (pixels > 1 + TOLERANCE))[0][0])
        message = (
            f"{tensor}: image {image} has pixels outside [0, 1] "
            f"(smallest {low:.6g}, largest {high:.6g} after scaling)"
        )
    return InputError(message, tensor=tensor)


def _decode_all(array: NDArray[Any], spec: PixelSpec, tensor: str) -> Floats:
    if array.dtype.kind != "O" or not spec.encoded:
        expected = "BYTES with encoded pictures" if spec.encoded else "pixels, not BYTES"
        raise InputError(f"{tensor}: expected {expected}", tensor=tensor)
    if array.ndim not in (1, 2) or array.shape[1:] not in ((), (1,)) or not array.size:
        message = f"{tensor}: shape {list(array.shape)}, expected [N] or [N, 1] encoded pictures"
        raise InputError(message, tensor=tensor)
    files = array.ravel().tolist()
    try:
        _check_sizes(files, spec, tensor)
        images = np.empty((len(files), *spec.shape), np.float32)
        for index, data in enumerate(files):
            name = f"{tensor}: picture {index}"
            images[index] = decode_image(
                data,
                max_pixels=spec.max_pixels,
                size=spec.shape[1:],
                channels=spec.shape[0],
                name=name,
            )
    except InputError as error:
        error.tensor = tensor
        raise
    return images


def _check_sizes(files: list[bytes], spec: PixelSpec, tensor: str) -> None:
    """Add up what all pictures claim, before one of them is decoded."""
    total, expected = 0, spec.shape[:0:-1]  # W, H
    for index, data in enumerate(files):
        name = f"{tensor}: picture {index}"
        _, width, height = image_size(data, name=name)
        if not spec.resize and (width, height) != expected:
            wanted = f"{expected[0]}x{expected[1]}"
            raise InputError(f"{name}: {width}x{height} pixels, expected {wanted}")
        total += width * height
    if total > spec.max_total_pixels:
        limit = spec.max_total_pixels
        raise InputError(f"{tensor}: {total} pixels in all are too many, at most {limit}")


def decode_image(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    size: tuple[int, int] | None = None,
    channels: int = 3,
    name: str = "image",
) -> Floats:
    """One PNG, JPEG or WebP file as float32 (C, H, W) in [0, 1].

    size:     (H, W) to resize to, None keeps the picture's own
    channels: 3 for colour, 1 for grey
    name:     what errors call the picture
    InputError for anything else, for more than `max_pixels`, for cut-off files and bytes after the
    end, for animations, transparency and 16 bits: there a decoder has to choose what is seen, and
    the classifier's may choose otherwise. Orientation tags are ignored.
    """
    kind, width, height = image_size(data, name=name)
    if width * height > max_pixels:
        message = f"{name}: {width}x{height} pixels are too many, at most {max_pixels}"
        raise InputError(message)
    if width * height > affordable_pixels(kind, data):
        message = f"{name}: {width}x{height} pixels are too many for {len(data)} bytes of {kind}"
        raise InputError(message)
    if kind == "JPEG" and data.count(b"\xff\xda") > MAX_SCANS:
        raise InputError(f"{name}: a JPEG of more than {MAX_SCANS} scans")
    try:
        with Image.open(io.BytesIO(data), formats=(kind,)) as picture:
            _check_picture(picture, (width, height), name)
            mode = "L" if channels == 1 else "RGB"
            picture.load()
            image = picture if picture.mode == mode else picture.convert(mode)
    except InputError:
        raise
    except Exception as error:
        # Decoders raise nearly anything on hostile bytes. Their texts hold addresses of this
        # process's memory, and this one goes to a stranger.
        raise InputError(f"{name}: not a readable {kind}") from error
    if size is not None and image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, np.uint8).reshape(image.size[1], image.size[0], -1)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32) / np.float32(255)


def affordable_pixels(kind: str, data: bytes) -> int:
    """How many pixels a file may unpack to: more would be a bomb, whatever `max_pixels` says."""
    one_pass = kind == "JPEG" and _in_one_pass(data)
    return max(FREE_BYTES, FACTOR * len(data)) // (COST_OF_ONE_PASS if one_pass else COST[kind])


def _check_picture(picture: Image.Image, size: tuple[int, int], name: str) -> None:
    if picture.size != size:
        raise InputError(f"{name}: its header gives two sizes, {size} and {picture.size}")
    if getattr(picture, "n_frames", 1) != 1:
        raise InputError(f"{name}: holds more than one picture")
    if picture.has_transparency_data and _least_alpha(picture) < 255:
        raise InputError(f"{name}: has transparency, which classifiers read in different ways")
    if picture.mode not in MODES:
        raise InputError(f"{name}: pixels of type {picture.mode} are not supported, send 8 bits")


def _least_alpha(picture: Image.Image) -> int:
    least, _ = picture.convert("RGBA").getchannel("A").getextrema()
    return int(least)  # type: ignore[arg-type]  # one channel: a pair of numbers


def resize(images: Floats, size: tuple[int, int]) -> Floats:
    """Images (N, C, H, W) at another (H, W): bilinear, antialiased when shrinking."""
    N, C, H, W = images.shape
    planes = images.reshape(N * C, H, W)
    answer = np.empty((N * C, *size), np.float32)
    for plane, out in zip(planes, answer, strict=True):
        picture = Image.fromarray(plane).resize((size[1], size[0]), Image.Resampling.BILINEAR)
        out[:] = np.asarray(picture)
    return answer.reshape(N, C, *size)


def image_size(data: bytes, *, name: str = "image") -> tuple[str, int, int]:
    """Format ("PNG", "JPEG" or "WEBP"), width and height, from the bytes alone; nothing is decoded.

    Also demands that the file ends where its format says it ends.
    """
    try:
        if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR":
            whole = data[-12:] == b"\0\0\0\0IEND\xaeB`\x82"
            found = ("PNG", *struct.unpack_from(">II", data, 16))
        elif data[:3] == b"\xff\xd8\xff":
            whole = data.rstrip(b"\0")[-2:] == b"\xff\xd9"
            found = ("JPEG", *_jpeg_size(data))
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            whole = int.from_bytes(data[4:8], "little") + 8 == len(data)
            found = ("WEBP", *_webp_size(data))
        else:
            raise InputError(f"{name}: neither PNG nor JPEG nor WebP ({len(data)} bytes)")
    except (struct.error, IndexError):
        raise InputError(f"{name}: truncated, its header is not complete") from None
    if found[1] < 1 or found[2] < 1:
        raise InputError(f"{name}: its header gives no size")
    if not whole:
        raise InputError(f"{name}: {found[0]} truncated, or more bytes after its end")
    return found


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """From the first frame header."""
    frame, _ = _jpeg_segment(data, 2, FRAMES)
    height, width = struct.unpack_from(">HH", data, frame + 5)
    return width, height


def _in_one_pass(data: bytes) -> bool:
    """Whether a first scan has all of a sequential frame, so that no coefficients are kept."""
    try:
        frame, marker = _jpeg_segment(data, 2, FRAMES)
        scan, _ = _jpeg_segment(data, frame, frozenset({0xDA}))
        return marker in (0xC0, 0xC1) and data[scan + 4] == data[frame + 9]
    except (struct.error, IndexError):
        return False


def _jpeg_segment(data: bytes, position: int, wanted: frozenset[int]) -> tuple[int, int]:
    """Where the first segment with one of these markers begins, and its marker."""
    for _ in range(MAX_SEGMENTS):
        marker = data[position + 1]
        if data[position] != 0xFF:
            raise IndexError
        if marker in wanted:
            return position, marker
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker in (0x01, *range(0xD0, 0xD8)):  # no length
            position += 2
        else:
            (length,) = struct.unpack_from(">H", data, position + 2)
            position += 2 + max(length, 2)
    raise IndexError


def _webp_size(data: bytes) -> tuple[int, int]:
    chunk = data[12:16]
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8X":
        size = struct.unpack_from("<6B", data, 24)
        width, height = bytes(size[:3]), bytes(size[3:])
        return int.from_bytes(width, "little") + 1, int.from_bytes(height, "little") + 1
    raise IndexError
