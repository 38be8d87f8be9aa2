"""Requests that must be refused, each with the status and the words it gets.

Used at codec level by test_malformed.py and over the wire by the end-to-end tests. Every case is
bytes as a client would send them, so that what protobuf itself would refuse can be among them.
"""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from guard.gateway.protocol import Message, ModelInferRequest


@dataclass(frozen=True)
class Target:
    """The model a malformed request is made for: FP32 [N, C, H, W] in [0, 1], or BYTES pictures."""

    model: str = "signs"
    tensor: str = "images"
    shape: tuple[int, int, int] = (3, 32, 32)


class Case(NamedTuple):
    """One malformed request."""

    name: str
    build: Callable[[Target], bytes]
    problem: str  # the message contains it
    status: str = "INVALID_ARGUMENT"
    model: str = "pixels"  # or "encoded", or "server": not the codec's to find


def valid(
    target: Target, count: int = 1, *, typed: bool = False, datatype: str = "FP32"
) -> Message:
    """A request that a model of FP32 or UINT8 pixels accepts; most cases spoil this one."""
    high = 255 if datatype == "UINT8" else 1
    shape = (count, *target.shape)
    images = np.full(shape, high / 2, np.uint8 if datatype == "UINT8" else np.float32)
    request = ModelInferRequest(model_name=target.model, id="7")
    tensor = request.inputs.add(name=target.tensor, datatype=datatype, shape=shape)
    if typed:
        tensor.contents.fp32_contents.extend(images.ravel().tolist())
    else:
        request.raw_input_contents.append(images.tobytes())
    return request


def encoded(target: Target, *files: bytes) -> Message:
    """A request that carries pictures as BYTES."""
    request = ModelInferRequest(model_name=target.model)
    request.inputs.add(name=target.tensor, datatype="BYTES", shape=[len(files)])
    request.raw_input_contents.append(b"".join(struct.pack("<I", len(f)) + f for f in files))
    return request


def picture(target: Target, form: str = "PNG", mode: str = "RGB", **options: Any) -> bytes:
    """A small good picture of the target's size."""
    file = io.BytesIO()
    size = (target.shape[2], target.shape[1])
    Image.linear_gradient("L").resize(size).convert(mode).save(file, form, **options)
    return file.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A valid PNG of a few kilobytes that decodes to width x height black pixels."""
    row = b"\0" * ((width + 7) // 8 + 1)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)  # one bit per pixel
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in (
            (b"IHDR", header),
            (b"IDAT", zlib.compress(row * height, 9)),
            (b"IEND", b""),
        )
    )


def _spoil(
    change: Callable[[Message, Target], object], **options: Any
) -> Callable[[Target], bytes]:
    def build(target: Target) -> bytes:
        request = valid(target, **options)
        change(request, target)
        return bytes(request.SerializeToString())

    return build


def _shape(*shape: int, **options: Any) -> Callable[[Target], bytes]:
    """The good bytes under another shape."""

    def change(request: Message, target: Target) -> None:
        request.inputs[0].shape[:] = shape

    return _spoil(change, **options)


def _array(make: Callable[[Target], Any], datatype: str = "FP32") -> Callable[[Target], bytes]:
    """Another array, honestly described."""

    def change(request: Message, target: Target) -> None:
        array = np.asarray(make(target))
        request.inputs[0].shape[:] = array.shape
        request.inputs[0].datatype = datatype
        request.raw_input_contents[0] = array.tobytes()

    return _spoil(change)


def _value(value: float, *, typed: bool = False, count: int = 1) -> Callable[[Target], bytes]:
    """One value of the last image replaced."""

    def change(request: Message, target: Target) -> None:
        if typed:
            request.inputs[0].contents.fp32_contents[-1] = value
        else:
            raw = request.raw_input_contents[0]
            request.raw_input_contents[0] = raw[:-4] + np.float32(value).tobytes()

    return _spoil(change, typed=typed, count=count)


def _field(**values: Any) -> Callable[[Target], bytes]:
    """Attributes of the first input replaced."""

    def change(request: Message, target: Target) -> None:
        for name, value in values.items():
            setattr(request.inputs[0], name, value)

    return _spoil(change)


def _raw(change: Callable[[bytes], list[bytes]]) -> Callable[[Target], bytes]:
    def spoil(request: Message, target: Target) -> None:
        request.raw_input_contents[:] = change(request.raw_input_contents[0])

    return _spoil(spoil)


def _parameter(where: str) -> Callable[[Target], bytes]:
    def change(request: Message, target: Target) -> None:
        holder = (
            request.inputs[0] if where == "input" else request.outputs.add(name="probabilities")
        )
        holder.parameters["shared_memory_region"].string_param = "region"
        holder.parameters["shared_memory_byte_size"].int64_param = 12288

    return _spoil(change)


def _outputs(*names: str) -> Callable[[Target], bytes]:
    def change(request: Message, target: Target) -> None:
        for name in names:
            request.outputs.add(name=name)

    return _spoil(change)


def _typed_field(
    field: str, values: list[Any], datatype: str = "FP32"
) -> Callable[[Target], bytes]:
    """Typed contents in `field`; the count is that of the shape where values holds one element."""

    def change(request: Message, target: Target) -> None:
        count = int(np.prod(target.shape)) if len(values) == 1 else 1
        request.inputs[0].datatype = datatype
        request.inputs[0].ClearField("contents")
        getattr(request.inputs[0].contents, field).extend(values * count)

    return _spoil(change, typed=True)


def _second(**values: Any) -> Callable[[Target], bytes]:
    """A second input beside the good one."""

    def change(request: Message, target: Target) -> None:
        request.inputs.add(**{"name": "other", "datatype": "INT32", "shape": [1], **values})
        request.raw_input_contents.append(b"\0\0\0\0")

    return _spoil(change)


def _clear(field: str, **options: Any) -> Callable[[Target], bytes]:
    return _spoil(lambda request, _: request.ClearField(field), **options)


def _copy_input(request: Message, target: Target) -> None:
    request.inputs.add().CopyFrom(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])


def _both_forms(request: Message, target: Target) -> None:
    request.inputs[0].contents.fp32_contents.extend([0.5] * int(np.prod(target.shape)))


def _both_fields(request: Message, target: Target) -> None:
    request.inputs[0].contents.int_contents.append(1)


def _many_inputs(request: Message, target: Target) -> None:
    for index in range(300):
        request.inputs.add(name=f"x{index}", datatype="UINT8", shape=[1])
        request.raw_input_contents.append(b"\0")


def _classify(request: Message, target: Target) -> None:
    request.raw_input_contents.append(b"")
    request.inputs.add(name="y", datatype="UINT8", shape=[0])


def _bytes_tensor(raw: bytes, *shape: int) -> Callable[[Target], bytes]:
    def build(target: Target) -> bytes:
        request = encoded(target, picture(target))
        request.inputs[0].shape[:] = shape
        request.raw_input_contents[0] = raw
        return bytes(request.SerializeToString())

    return build


def _pictures(make: Callable[[Target], list[bytes]]) -> Callable[[Target], bytes]:
    return lambda target: bytes(encoded(target, *make(target)).SerializeToString())


def _animation(target: Target) -> list[bytes]:
    file = io.BytesIO()
    frames = [Image.new("RGB", target.shape[:0:-1], (shade, 0, 0)) for shade in (0, 200)]
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    return [file.getvalue()]


def _huge(target: Target) -> list[bytes]:
    """A good picture whose header claims 2^31 - 1 pixels each way."""
    return [picture(target)[:16] + b"\x7f\xff\xff\xff" * 2 + picture(target)[24:]]


def _halves(target: Target) -> list[bytes]:
    whole = picture(target)
    return [whole, whole[: len(whole) // 2]]


def _deep(target: Target) -> bytes:
    """The good request behind a field whose bytes are no UTF-8."""
    return b"\x1a\x02\xff\xfe" + bytes(valid(target).SerializeToString())


def _rename(request: Message, target: Target) -> None:
    request.model_name = "no-such-model"


def _unnamed(request: Message, target: Target) -> None:
    request.model_name = ""


BIG = 2**62
NOT_A_REQUEST = "are not a ModelInferRequest"
NO_FIT = "raw bytes do not fit"
RANGE = "outside [0, 1]"
ENCODED = {"model": "encoded"}
CASES: tuple[Case, ...] = (
    # not a message
    Case("empty request", lambda _: b"", "no inputs"),
    Case("random bytes", lambda _: b"\xff" * 64, NOT_A_REQUEST),
    Case("half a message", lambda t: valid(t).SerializeToString()[:-9], NOT_A_REQUEST),
    Case("id is not UTF-8", _deep, NOT_A_REQUEST),
    # names
    Case("no inputs", _clear("inputs"), "no inputs"),
    Case("input without a name", _field(name=""), "has no name"),
    Case("input of another name", _field(name="pixels"), "is missing"),
    Case("very long name", _field(name="x" * 100_000), "too long"),
    Case("input twice", _spoil(_copy_input), "more than once"),
    Case("300 inputs", _spoil(_many_inputs), "too many"),
    Case("output asked twice", _outputs("label", "label"), "more than once"),
    Case("output without a name", _outputs(""), "has no name"),
    Case("unknown guard output", _outputs("guard_secret"), "no output 'guard_secret'"),
    # datatypes
    Case("no datatype", _field(datatype=""), "unknown datatype ''"),
    Case("unknown datatype", _field(datatype="FLOAT32"), "unknown datatype 'FLOAT32'"),
    Case("lower case datatype", _field(datatype="fp32"), "unknown datatype 'fp32'"),
    Case("very long datatype", _field(datatype="F" * 100_000), "unknown datatype"),
    Case("BOOL pixels", _array(lambda t: np.ones((1, *t.shape), bool), "BOOL"), "takes"),
    Case("FP64 pixels", _array(lambda t: np.zeros((1, *t.shape)), "FP64"), "takes"),
    Case("BYTES for pixels", _pictures(lambda t: [picture(t)]), "takes"),
    Case("INT64 under FP32's bytes", _field(datatype="INT64"), "raw bytes do not fit INT64"),
    Case("UINT8 under FP32's bytes", _field(datatype="UINT8"), "raw bytes do not fit UINT8"),
    # shapes
    Case("no shape", _shape(), NO_FIT),
    Case("empty batch", _array(lambda t: np.zeros((0, *t.shape), np.float32)), "not positive"),
    Case("zero height", _shape(1, 3, 0, 32), "not positive"),
    Case("negative batch", _shape(-1, 3, 32, 32), "not positive"),
    Case("two negatives", _shape(-1, -3, 32, 32), "not positive"),
    Case("smallest int64", _shape(-(2**63), 3, 32, 32), "not positive"),
    Case("product overflows to 0", _shape(BIG, 4, 32, 32), NO_FIT),
    Case("product overflows to fit", _shape(1, 3, 32, 32, 2**32, 2**32), NO_FIT),
    Case("largest int64", _shape(2**63 - 1, 2**63 - 1), NO_FIT),
    Case("a billion images", _shape(10**9, 3, 32, 32), NO_FIT),
    Case("17 dimensions", _shape(*[1] * 17), "too many"),
    Case("flat", _array(lambda t: np.zeros((1, int(np.prod(t.shape))), np.float32)), "expected [N"),
    Case("no batch dimension", _array(lambda t: np.zeros(t.shape, np.float32)), "expected [N"),
    Case("five dimensions", _array(lambda t: np.zeros((1, 1, *t.shape), "<f4")), "expected [N"),
    Case("channels last", _array(lambda _: np.zeros((1, 32, 32, 3), np.float32)), "expected [N"),
    Case("one channel", _array(lambda _: np.zeros((1, 1, 32, 32), np.float32)), "expected [N"),
    Case("four channels", _array(lambda _: np.zeros((1, 4, 32, 32), np.float32)), "expected [N"),
    Case("wrong size", _array(lambda _: np.zeros((1, 3, 31, 32), np.float32)), "expected [N"),
    Case("oversized", _array(lambda _: np.zeros((1, 3, 512, 512), np.float32)), "expected [N"),
    # contents
    Case("no contents", _clear("raw_input_contents"), "0 elements"),
    Case("raw truncated by one", _raw(lambda raw: [raw[:-1]]), NO_FIT),
    Case("raw truncated by an image", _raw(lambda raw: [raw[: len(raw) // 2]]), NO_FIT),
    Case("raw too long", _raw(lambda raw: [raw + b"\0"]), NO_FIT),
    Case("raw empty", _raw(lambda _: [b""]), NO_FIT),
    Case("two raw buffers", _raw(lambda raw: [raw, raw]), "2 raw_input_contents for 1 inputs"),
    Case("both forms", _spoil(_both_forms), "both contents and raw_input_contents"),
    Case("typed too short", _typed_field("fp32_contents", [0.5, 0.5]), "2 elements"),
    Case("typed, wrong field", _typed_field("int_contents", [1]), "belongs in fp32_contents"),
    Case("typed, two fields", _spoil(_both_fields, typed=True), "belongs in fp32_contents"),
    Case("typed FP16", _typed_field("fp32_contents", [0.5], "FP16"), "has no typed contents"),
    Case("typed BF16", _typed_field("fp32_contents", [0.5], "BF16"), "has no typed contents"),
    Case("typed UINT8 of 256", _typed_field("uint_contents", [256], "UINT8"), "does not fit UINT8"),
    Case("second input truncated", _second(shape=[2]), "other: 4 raw bytes do not fit"),
    Case("second input unknown", _second(datatype="STRING"), "other: unknown datatype"),
    Case("second input is empty", _spoil(_classify), "y: shape [0]"),
    Case("shared memory input", _parameter("input"), "shared memory is refused"),
    Case("shared memory output", _parameter("output"), "shared memory is refused"),
    # numbers
    Case("NaN", _value(np.nan), "not finite"),
    Case("NaN, typed", _value(np.nan, typed=True), "not finite"),
    Case("infinite", _value(np.inf), "not finite"),
    Case("minus infinite", _value(-np.inf), "not finite"),
    Case("NaN in one of four images", _value(np.nan, count=4), "image 3 has a value"),
    Case("above 1", _value(1.01), RANGE),
    Case("below 0", _value(-0.01), RANGE),
    Case("largest float", _value(3e38), RANGE),
    Case("0 to 255 as floats", _array(lambda t: np.full((1, *t.shape), 255, "<f4")), RANGE),
    # encoded pictures
    Case("pixels for pictures", lambda t: valid(t).SerializeToString(), "takes BYTES", **ENCODED),
    Case("no picture", _pictures(lambda _: []), "not positive", **ENCODED),
    Case("empty picture", _pictures(lambda _: [b""]), "neither PNG nor JPEG", **ENCODED),
    Case("text for a picture", _pictures(lambda _: [b"hello"]), "neither PNG nor JPEG", **ENCODED),
    Case("a GIF", _pictures(lambda t: [picture(t, "GIF")]), "neither PNG nor JPEG", **ENCODED),
    Case("half a PNG", _pictures(_halves), "picture 1: PNG truncated", **ENCODED),
    Case("PNG header alone", _pictures(lambda t: [picture(t)[:20]]), "truncated", **ENCODED),
    Case(
        "PNG with broken pixels",
        _pictures(lambda t: [picture(t)[:50] + b"\0\0\0\0" + picture(t)[54:]]),
        "not a readable PNG",
        **ENCODED,
    ),
    Case(
        "PNG with a tail",
        _pictures(lambda t: [picture(t) + b"PK\x03\x04"]),
        "more bytes after its end",
        **ENCODED,
    ),
    Case(
        "JPEG followed by junk",
        _pictures(lambda t: [picture(t, "JPEG") + b"junk"]),
        "more bytes after its end",
        **ENCODED,
    ),
    Case(
        "JPEG of junk",
        _pictures(lambda t: [picture(t, "JPEG")[:3] + b"junk" * 99 + b"\xff\xd9"]),
        "header is not complete",
        **ENCODED,
    ),
    Case("half a JPEG", _pictures(lambda t: [picture(t, "JPEG")[:300]]), "truncated", **ENCODED),
    Case("half a WebP", _pictures(lambda t: [picture(t, "WEBP")[:-9]]), "truncated", **ENCODED),
    Case("400 MB bomb", _pictures(lambda _: [bomb(12_000, 12_000)]), "pixels", **ENCODED),
    Case("2^31 wide", _pictures(_huge), "pixels", **ENCODED),
    Case("animated PNG", _pictures(_animation), "more than one picture", **ENCODED),
    Case("16 bit PNG", _pictures(lambda t: [picture(t, mode="I;16")]), "16", **ENCODED),
    Case("CMYK JPEG", _pictures(lambda t: [picture(t, "JPEG", "CMYK")]), "CMYK", **ENCODED),
    Case("good and bad", _pictures(lambda t: [picture(t), b"bad"]), "picture 1", **ENCODED),
    Case("length cut off", _bytes_tensor(b"\1\0\0", 1), "at least 4", **ENCODED),
    Case("length beyond the end", _bytes_tensor(b"\xff\0\0\0ab", 1), "claims 255 bytes", **ENCODED),
    Case("length of 4 GB", _bytes_tensor(b"\xff" * 4 + b"ab", 1), "claims 4294967295", **ENCODED),
    Case("second length missing", _bytes_tensor(b"\4\0\0\0abcd", 2), "truncated before", **ENCODED),
    Case("bytes left over", _bytes_tensor(b"\1\0\0\0ab", 1), "left over", **ENCODED),
    Case("a million strings", _bytes_tensor(b"\0" * 4_000_000, 10**6), "too many", **ENCODED),
    # what only a server can know
    Case("unknown model", _spoil(_rename), "no-such-model", "NOT_FOUND", "server"),
    Case("no model name", _spoil(_unnamed), "model", "NOT_FOUND", "server"),
)  # fmt: skip
