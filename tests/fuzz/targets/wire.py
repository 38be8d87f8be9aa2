"""What arrives over gRPC, in process: requests as bytes to the real servicer, its real replies."""

import asyncio
import contextlib
import random
from collections.abc import Hashable
from typing import Any

import grpc
import numpy as np

from guard.config import Config, Gateway, Input, Model
from guard.gateway import codec, protocol
from guard.gateway.operators import GuardServicer
from guard.gateway.server import running
from guard.gateway.servicer import fail
from guard.testing import classifier_onnx, clean_images, make_pack, suspicious_images
from tests.fuzz.engine import where
from tests.fuzz.messages import shaken
from tests.fuzz.target import Finding, Target, demand
from tests.gateway.malformed import CASES, encoded, picture, valid
from tests.gateway.malformed import Target as Aim

BROKEN = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS)
LARGEST = 16 << 10  # bytes of a kept case
SHAPE = (3, 8, 8)
FORMS = ((1, False, "FP32"), (3, True, "FP32"), (1, False, "UINT8"))  # images, typed, datatype
WORDS = tuple(
    word.encode()
    for word in (
        "images", "pixels", "alone", "pictures", "renamed", "classifier", "logits", "label",
        "probabilities", "guard_decision", "guard_p_value", "guard_scores", "guard_", "priority",
        "shared_memory_region", "shared_memory_byte_size", "classification", "binary_data",
        "1", "2", "7", *codec.tensors.DATATYPES,
    )
)  # fmt: skip


class Context:
    """Stands in for gRPC's: remembers the status and what is sent beside it."""

    def __init__(self) -> None:
        self.code: grpc.StatusCode | None = None
        self.details = ""
        self.trailing: tuple[tuple[str, Any], ...] = ()

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """None was sent."""
        return ()

    def time_remaining(self) -> None:
        """There is no deadline."""

    def peer(self) -> str:
        """From this machine."""
        return "ipv4:127.0.0.1:1"

    def auth_context(self) -> dict[str, Any]:
        """Over plain text."""
        return {}

    async def send_initial_metadata(self, _metadata: Any) -> None:
        """Nobody reads it."""

    def set_trailing_metadata(self, metadata: Any) -> None:
        """Beside the status."""
        self.trailing = tuple(metadata)

    def set_code(self, code: grpc.StatusCode) -> None:
        """The status."""
        self.code = code

    def set_details(self, details: str) -> None:
        """Its text."""
        self.details = details


class Served(Target):
    """A gateway with four models, whose calls are made without a network between."""

    strict = True
    words = WORDS

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self._stack = contextlib.AsyncExitStack()
        self.gateway = self._do(self._stack.enter_async_context(running(self._config())))
        self.servicer = self.gateway.servicer
        self.operators = GuardServicer(self.servicer)
        self.secrets = (str(self.folder), "classifier-file", "tiny")

    def _do(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def _config(self) -> Config:
        pack = str(make_pack(self.folder / "tiny"))
        file = self.folder / "classifier-file.onnx"
        file.write_bytes(classifier_onnx())
        behind = {"pack": pack, "upstream": f"onnx:{file}"}
        block: dict[str, Any] = {"mode": "enforce", "on_flag": "block"}
        models = [
            Model(name="pixels", **behind, **block),
            Model(name="renamed", **behind, mode="enforce", on_flag="substitute",
                  upstream_model="inner-canary", expose="none"),
            Model(name="alone", pack=pack, answer="ensemble", max_images=4,
                  input=Input(layout="NHWC", scale=255.0, resize=True), max_pixels=4096),
            Model(name="pictures", pack=pack, answer="ensemble", mode="enforce",
                  input=Input(encoded=True, resize=True), max_pixels=1 << 16),
        ]  # fmt: skip
        return Config(models=models, gateway=Gateway(listen="127.0.0.1:0", metrics=""))

    def close(self) -> None:
        """Drain and stop."""
        self._do(self._stack.aclose())
        self.loop.close()

    def answer(self, behaviour: Any, data: bytes) -> tuple[Any, Hashable]:
        """A call's reply, or None and why not; a `Finding` for what no reply may be."""
        context = Context()
        try:
            reply = self._do(behaviour(data, context))
        except Exception as error:
            fail(context, error)
            if context.code in BROKEN:
                raise Finding("internal", f"{context.code}: {error!r}") from error
            self._check_failure(context, data)
            return None, where(error)
        self.check_reply(_texts(reply), data)
        return reply, "OK"

    def _check_failure(self, context: Context, data: bytes) -> None:
        demand(context.code and context.code is not grpc.StatusCode.OK, "a failure without a code")
        self.check_reply(context.details, data)
        details = dict(context.trailing).get(protocol.STATUS_DETAILS, b"")
        info = protocol.error_info(details)
        demand(info and info.reason and info.domain == "guard", "a failure without ErrorInfo")
        for value in info.metadata.values():
            self.check_reply(value, data)


class Wire(Served):
    """`ModelInfer`: any bytes."""

    name = "wire"
    structured = 0.8
    good = 10

    def seeds(self) -> list[bytes]:
        """Good requests of every form, and the table of malformed ones."""
        requests = [
            valid(Aim(model, shape=SHAPE), count, typed=typed, datatype=datatype)
            for model in ("pixels", "renamed")
            for count, typed, datatype in (
                (1, False, "FP32"),
                (3, True, "FP32"),
                (1, False, "UINT8"),
            )
        ]
        requests += [_images("pixels", suspicious_images([0, 1])), _images("renamed", mixed())]
        small = (clean_images([0, 1]) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
        requests.append(_images("alone", np.ascontiguousarray(small)))
        aim = Aim("pictures", shape=SHAPE)
        requests.append(encoded(aim, *(picture(aim, form) for form in ("PNG", "JPEG", "WEBP"))))
        for request in requests[:2]:
            for name in codec.GUARD_OUTPUTS:
                request.outputs.add(name=name)
        data = [bytes(request.SerializeToString()) for request in requests]
        spoilt = [
            c.build(aim if c.model == "encoded" else Aim("pixels", shape=SHAPE)) for c in CASES
        ]
        return data + [case for case in spoilt if len(case) < LARGEST]

    def mutate(self, data: bytes, rng: random.Random) -> bytes:
        """Another message."""
        return shaken(protocol.ModelInferRequest, data, rng, self.words)

    def run(self, data: bytes) -> Hashable:
        """One inference request."""
        reply, seen = self.answer(self.servicer.model_infer, data)
        if reply is None:
            return seen
        demand(reply.model_name in self.servicer.models, "an answer of no model")
        demand(reply.outputs, "an answer without outputs")
        shapes = tuple((one.name, one.datatype, len(one.shape)) for one in reply.outputs)
        return reply.model_name, bool(reply.raw_output_contents), shapes


class Calls(Served):
    """Every other unary call; the first byte says which."""

    name = "calls"

    def __init__(self) -> None:
        super().__init__()
        one, other = self.servicer, self.operators
        self.behaviours = {
            "ModelReady": one.model_ready,
            "ModelMetadata": one.model_metadata,
            "ServerMetadata": one.server_metadata,
            "ServerReady": one.server_ready,
            "Status": other.status,
            "Inspect": other.inspect,
        }
        methods = {**protocol.INFERENCE_METHODS, **protocol.GUARD_METHODS}
        self._requests = [methods[name].request for name in self.behaviours]
        # An operator asks for these names.
        self.secrets = (str(self.folder), "inner-canary")

    def seeds(self) -> list[bytes]:
        """A good request for each call and model."""
        found = []
        for index, kind in enumerate(self._requests):
            for model in self.servicer.models:
                request = kind()
                if "name" in kind.DESCRIPTOR.fields_by_name:
                    request.name = model
                if "model_name" in kind.DESCRIPTOR.fields_by_name:
                    request.model_name = model
                if "images" in kind.DESCRIPTOR.fields_by_name:
                    request.images.CopyFrom(codec.pack_tensor(mixed()))
                    rows = np.full((2, 3), 1 / 3, np.float32)
                    request.upstream.CopyFrom(codec.pack_tensor(rows))
                found.append(bytes([index]) + request.SerializeToString())
        return found

    def mutate(self, data: bytes, rng: random.Random) -> bytes:
        """Another message for the same call."""
        first = data[:1] or b"\0"
        kind = self._requests[first[0] % len(self._requests)]
        return first + shaken(kind, data[1:], rng, self.words)

    def check_reply(self, text: str, data: bytes) -> None:
        """Where upstreams are, `Status` says to an operator on purpose."""
        if "upstream: " not in text:
            super().check_reply(text[:500], data)

    def run(self, data: bytes) -> Hashable:
        """One call."""
        index = data[0] % len(self._requests) if data else 0
        reply, seen = self.answer(list(self.behaviours.values())[index], data[1:])
        return seen if reply is None else (index, seen)


def mixed() -> Any:
    """A clean image and one that the tiny pack flags."""
    return np.concatenate([clean_images([0]), suspicious_images([1])])


def _images(model: str, images: Any) -> Any:
    request = protocol.ModelInferRequest(model_name=model)
    tensor = codec.pack_tensor(images)
    request.inputs.add(name="images", datatype=tensor.datatype, shape=tensor.shape)
    request.raw_input_contents.append(tensor.data)
    return request


def _texts(reply: Any) -> str:
    """What a reply says in words."""
    words = [getattr(reply, "name", ""), getattr(reply, "model_name", "")]
    words += [one.name for one in getattr(reply, "outputs", ())]
    words += [f"{k}={v}" for k, v in getattr(reply, "parameters", {}).items()]
    return " ".join(str(word).replace("\n", " ") for word in words)[:600]
