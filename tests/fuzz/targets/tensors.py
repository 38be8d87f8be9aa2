"""Tensors and what they claim: a client's through the codec, an upstream's through the mask."""

import asyncio
import random
from collections.abc import Hashable, Sequence
from typing import Any

import grpc
import grpc.aio
import numpy as np

from guard.config import Output, Tls
from guard.errors import GuardError, InputError, UpstreamError
from guard.gateway import answers, codec, protocol
from guard.gateway.mapping import AnswerReader
from guard.gateway.status import failure
from guard.gateway.upstream import GrpcUpstream
from guard.images import PixelSpec, to_pixels
from guard.pack import Pack
from guard.testing import make_pack
from tests.fuzz.messages import shaken
from tests.fuzz.target import Target, demand
from tests.fuzz.targets.wire import WORDS
from tests.gateway.malformed import CASES, encoded, picture, valid
from tests.gateway.malformed import Target as Aim

AIM = Aim("pixels", shape=(3, 8, 8))
LARGEST = 4096  # bytes of a kept case
SPECS = (
    PixelSpec(AIM.shape),
    PixelSpec(AIM.shape, layout="NHWC", scale=255.0, resize=True, max_pixels=1 << 12),
    PixelSpec(AIM.shape, scale=1.0, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3)),
    PixelSpec(AIM.shape, layout="CHW"),
    PixelSpec(AIM.shape, layout="HWC", resize=True, max_pixels=1 << 12),
    PixelSpec(AIM.shape, encoded=True, resize=True, max_pixels=1 << 12),
    PixelSpec((1, 8, 8), encoded=True),
)


class Tensors(Target):
    """A request's tensors through check, reading and pixels; the first byte picks the settings."""

    name = "tensors"
    errors = (InputError,)
    words = WORDS
    strict = True
    structured = 0.85

    def seeds(self) -> list[bytes]:
        """Each datatype in both forms, and the malformed requests."""
        found = [b"\0" + _typed(name, typed) for typed in (False, True) for name in PLAIN]
        found += [bytes([1]) + _raw(np.full((2, 5, 9, 3), 100, np.uint8))]
        found += [bytes([2]) + _raw(np.zeros((1, 3, 8, 8), np.float32))]
        found += [bytes([3]) + _raw(np.full((3, 8, 8), 0.5, np.float16))]
        found += [bytes([4]) + _raw(np.full((20, 30, 3), 0.5, np.float64))]
        files = [picture(AIM, form) for form in ("PNG", "JPEG", "WEBP")]
        found += [bytes([5]) + bytes(encoded(AIM, *files).SerializeToString())]
        cases = [bytes([case.model == "encoded"]) + case.build(AIM) for case in CASES]
        return found + [case for case in cases if len(case) < LARGEST]

    def mutate(self, data: bytes, rng: random.Random) -> bytes:
        """Another message, sometimes for other settings."""
        first = data[:1] or b"\0"
        if rng.random() < 0.1:
            first = bytes([rng.randrange(len(SPECS))])
        return first + shaken(protocol.ModelInferRequest, data[1:], rng, self.words)

    def check_reply(self, text: str, data: bytes) -> None:
        """`status.py` makes it one line later."""
        super().check_reply(text.replace("\n", " ")[:600], data)

    def run(self, data: bytes) -> Hashable:
        """What a servicer does before the defence looks."""
        spec = SPECS[data[0] % len(SPECS)] if data else SPECS[0]
        request = codec.parse(protocol.ModelInferRequest, data[1:])
        codec.check_request(request)
        name = request.inputs[0].name
        array = codec.read_input(request, name)
        demand(array.shape == tuple(request.inputs[0].shape), "an array of another shape")
        pixels = to_pixels(array, spec, tensor=name)
        demand(pixels.dtype == np.float32 and pixels.ndim == 4, "not float32 NCHW")
        demand(pixels.shape[1:] == spec.shape and len(pixels), "pixels of another shape")
        demand(bool(np.isfinite(pixels).all()), "a pixel that is not finite")
        demand(bool((pixels >= 0).all() and (pixels <= 1).all()), "a pixel outside [0, 1]")
        return request.inputs[0].datatype, spec.layout, codec.is_raw(request)


class Replies(Target):
    """What an upstream may answer: read, then three images of four are masked or substituted."""

    name = "replies"
    errors = (UpstreamError, answers.UnmaskableError)
    words = WORDS
    structured = 0.85
    good = 20

    def __init__(self) -> None:
        super().__init__()
        self._pack = Pack.load(make_pack(self.folder / "tiny"))

    def seeds(self) -> list[bytes]:
        """Answers of each kind, raw and typed."""
        rows = np.full((4, 3), 1 / 3, np.float32)
        tables: list[dict[str, Any]] = [
            {"probabilities": rows, "label": np.arange(4) % 3},
            {"logits": rows.astype(np.float64) * 9, "names": np.array([b"a"] * 4, object)},
            {"label": np.zeros((4, 1), np.int32), "other": np.zeros((4, 2, 2), np.float16)},
            {"score": rows, "flag": np.ones(4, np.bool_), "count": np.zeros(4, np.uint8)},
        ]
        found = []
        for index, table in enumerate(tables):
            for raw in (True, False):
                reply = protocol.ModelInferResponse(model_name="m", model_version="1")
                for name, array in table.items():
                    codec.add_output(reply, name, array, raw=raw or array.dtype == np.float16)
                found.append(bytes([index]) + reply.SerializeToString())
        return found

    def mutate(self, data: bytes, rng: random.Random) -> bytes:
        """Another answer."""
        first = data[:1] or b"\0"
        return first + shaken(protocol.ModelInferResponse, data[1:], rng, self.words)

    def run(self, data: bytes) -> Hashable:
        """What `guarded.py` does with a reply on four images."""
        choice = data[0] if data else 0
        try:
            reply = protocol.ModelInferResponse.FromString(data[1:])
        except Exception as error:  # `upstream.py` does the same
            raise UpstreamError("the upstream's answer cannot be parsed") from error
        tensor = ("probabilities", "logits", "label", "")[choice % 4]
        reader = AnswerReader(Output(tensor=tensor), self._pack)
        answers.check_response(reply)
        rows, spec = reader.read(reply, 4)
        demand(rows.shape == (4, 3) and rows.dtype == np.float32, "probabilities of another shape")
        finite = np.isfinite(rows).all(axis=1)
        demand(bool(np.isnan(rows[~finite]).all()), "a row that is not finite is not all NaN")
        demand(bool((np.abs(rows[finite].sum(1) - 1) < 0.2).all()), "a row that sums to no 1")
        stopped = np.array([True, False, True, True])
        if choice & 4:
            mine = np.full((4, 3), 1 / 3, np.float32)
            answers.substitute_rows(reply, spec, ~stopped, mine)
        before = [answers.read_output(reply, one.name) for one in reply.outputs]
        answers.mask_rows(reply, stopped)
        for array, output in zip(before, reply.outputs, strict=True):
            _check_mask(array, answers.read_output(reply, output.name), stopped)
        plan = codec.Plan(protocol.ModelInferRequest(), raw=True)
        answers.finish_response(reply, plan, outputs={}, parameters={"guard_decision": "ALLOW"})
        demand(len(reply.outputs) <= len(before), "more outputs than the upstream sent")
        return spec.kind, tuple(one.datatype for one in reply.outputs), choice & 4


class Complaints(Target):
    """What an upstream says went wrong, as its client gets to hear it; the first byte: the code."""

    name = "complaints"
    words = (
        b"/models/secret/1/model.onnx", b"Traceback (most recent call last):", b"\n", b"C:\\x",
        b"0x7f3a1234", b"model 'inner-canary'", b"inner-canary", b"<numpy.ndarray object at ",
        b"line 3, in f", b".py",
    )  # fmt: skip
    strict = True
    errors = (GuardError,)
    secrets = ("inner-canary",)

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._upstream = GrpcUpstream(
            "grpc://127.0.0.1:1", model="inner-canary", known_as="m", tls=Tls(),
            max_message_bytes=1 << 20,
        )  # fmt: skip

    def close(self) -> None:
        """It was never connected."""
        self._loop.run_until_complete(self._upstream.close())
        self._loop.close()

    def seeds(self) -> list[bytes]:
        """Complaints of real servers, and some that tell too much."""
        texts = [
            "[request id: 7] unexpected shape for input 'images' for model 'inner-canary'.",
            "Expected [-1,3,8,8], got [1,3]",
            *(word.decode() for word in self.words),
        ]
        codes = sorted(code.value[0] for code in grpc.StatusCode)
        return [bytes([code]) + text.encode() for text in texts for code in (3, *codes[1:6])]

    def run(self, data: bytes) -> Hashable:
        """The error, and then its reply."""
        codes = list(grpc.StatusCode)
        code = codes[data[0] % len(codes)] if data else codes[2]
        details = data[1:].decode("utf-8", "replace")
        error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)
        failed = failure(self._upstream._error(error))
        self.check_reply(failed.message, b"")  # the client itself said nothing
        return failed.code, failed.message.startswith("upstream: ")


def _check_mask(before: Any, after: Any, stopped: Any) -> None:
    """What is masked says nothing, what is not is untouched."""
    demand(before.shape == after.shape, "masking changed a shape")
    number = after.dtype.kind == "f"
    same = np.array_equal(before[~stopped], after[~stopped], equal_nan=number)
    demand(same, "masking changed another row")
    gone = after[stopped]
    if number:
        demand(bool(np.isnan(gone).all()), "a masked number can be read")
    elif after.dtype.kind == "O":
        demand(all(value == b"" for value in gone.ravel()), "masked bytes can be read")
    else:
        demand(len(np.unique(gone)) <= 1, "masked numbers differ")


PLAIN: Sequence[str] = tuple(name for name in codec.tensors.DATATYPES if name != "BYTES")


def _typed(datatype: str, typed: bool) -> bytes:
    """A picture of ones in this datatype, in one form of contents."""
    entry = codec.tensors.DATATYPES[datatype]
    if datatype in ("FP32", "UINT8"):
        return bytes(valid(AIM, typed=typed, datatype=datatype).SerializeToString())
    array = np.ones((1, *AIM.shape), entry.array)
    request = protocol.ModelInferRequest(model_name="pixels")
    tensor = request.inputs.add(name="images", datatype=datatype, shape=array.shape)
    if typed and entry.field:
        codec.tensors.to_typed(tensor.contents, array, datatype, "images")
    else:
        request.raw_input_contents.append(codec.tensors.to_raw(array, datatype))
    return bytes(request.SerializeToString())


def _raw(array: Any) -> bytes:
    request = protocol.ModelInferRequest(model_name="pixels")
    datatype = codec.tensors.datatype_of(array)
    request.inputs.add(name="images", datatype=datatype, shape=array.shape)
    request.raw_input_contents.append(codec.tensors.to_raw(array, datatype))
    return bytes(request.SerializeToString())
