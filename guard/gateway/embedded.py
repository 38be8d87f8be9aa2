"""A production classifier in a file: an ONNX model run in the gateway's own process.

It behaves like a server behind gRPC: tensors by name and as received, its own complaints about
shape and type, batches of what is queued.
"""

import asyncio
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guard.errors import ConfigError, InputError, UpstreamError
from guard.gateway import codec, protocol, tensors
from guard.gateway.batcher import Batcher
from guard.gateway.upstream import Question, Reply
from guard.onnx import Session

Array = NDArray[Any]
Arrays = Mapping[str, Array]

STUCK_SECONDS = 20.0  # of one run
MAX_BYTES = 2 << 30  # protobuf's own limit
_NUMPY_NAMES = {"float": "float32", "double": "float64", "string": "object"}


class OnnxUpstream:
    """A classifier in a file, run in this process."""

    def __init__(
        self, path: Path, *, model: str, shape: tuple[int, ...], max_batch: int, max_queue: int
    ) -> None:
        self.model = model
        self.session = Session(_read_model(path))
        self._outputs = self.session.outputs
        self._probe = self._try(shape, 1)
        if not self._by_rows(shape):
            max_batch = 1  # strangers' images never meet
        self._batcher: Batcher[Arrays] = Batcher(
            self._run_batch, _rows, max_batch=max_batch, max_queue=max_queue, name=f"onnx-{model}"
        )

    async def infer(self, question: Question) -> Reply:
        """Run it on the request's tensors, together with what else waits."""
        wanted = codec.wanted_outputs(question.request, self._outputs)
        feeds = self._feeds(question)
        try:
            async with asyncio.timeout(question.timeout):
                answer = await self._answer(feeds)
        except TimeoutError as error:
            message = "the embedded model did not answer in time"
            raise UpstreamError(message, code="DEADLINE_EXCEEDED", retryable=True) from error
        outputs = {name: answer[name] for name in wanted}
        return Reply(codec.build_response(question.request, outputs, model_version="1"))

    async def _answer(self, feeds: dict[str, Array]) -> Arrays:
        if len(feeds) == 1:
            return await self._batcher.submit(next(iter(feeds.values())))
        return await asyncio.to_thread(self._run, feeds)

    @property
    def stuck(self) -> bool:
        """Whether a run hangs."""
        return self._batcher.busy_for > STUCK_SECONDS

    async def ready(self) -> bool:
        """It is in memory, and does not hang."""
        return not self.stuck

    async def metadata(self) -> protocol.Message:
        """Names, types and shapes from the file and from one trial run."""
        about = protocol.ModelMetadataResponse(
            name=self.model, versions=["1"], platform="onnxruntime_onnx"
        )
        for name, (kind, shape) in self.session.inputs.items():
            dims = [size if isinstance(size, int) else -1 for size in shape]
            about.inputs.add(name=name, datatype=tensors.datatype_of(_zeros(kind, [1])), shape=dims)
        for name, array in self._probe.items():
            datatype = tensors.datatype_of(array)
            about.outputs.add(name=name, datatype=datatype, shape=[-1, *array.shape[1:]])
        return about

    async def close(self) -> None:
        """Finish what is queued."""
        await self._batcher.close()

    def _feeds(self, question: Question) -> dict[str, Array]:
        """The request's tensors as the session takes them; encoded images as pixels."""
        given = [tensor.name for tensor in question.request.inputs]
        for name in given:
            if name not in self.session.inputs:
                raise InputError(f"{name}: the model has no such input", tensor=name)
        for name in self.session.inputs:
            if name not in given:
                raise InputError(f"{name}: the model's input is missing", tensor=name)
        return {name: self._feed(name, question) for name in given}

    def _feed(self, name: str, question: Question) -> Array:
        kind, shape = self.session.inputs[name]
        array = codec.read_input(question.request, name)
        if array.dtype == object and kind != "tensor(string)":
            array = question.pixels
        wanted = _zeros(kind, []).dtype
        if array.dtype != wanted and kind != "tensor(string)":
            message = f"{name}: the model takes {wanted}, not {array.dtype}"
            raise InputError(message, tensor=name)
        fits = len(shape) == array.ndim and all(
            size == expected or not isinstance(expected, int)
            for size, expected in zip(array.shape, shape, strict=True)
        )
        if not fits:
            dims = ", ".join(str(n) if isinstance(n, int) else "-1" for n in shape)
            message = f"{name}: shape {list(array.shape)} does not fit the model's [{dims}]"
            raise InputError(message, tensor=name)
        return array

    def _run_batch(self, array: Array) -> Arrays:
        return self._run({next(iter(self.session.inputs)): array})

    def _run(self, feeds: dict[str, Array]) -> Arrays:
        try:
            return self.session.run(feeds)
        except Exception as error:
            raise UpstreamError("the embedded model failed", code="INTERNAL") from error

    def _by_rows(self, shape: tuple[int, ...]) -> bool:
        """Whether two images together are answered like each alone, so that callers may share."""
        if len(self.session.inputs) != 1:
            return False
        both = self._try(shape, 2)
        ones = [self._try(shape, 1, skip=index) for index in (0, 1)]
        if not both or not all(ones):
            return False
        return all(_like_each(array, [one[name] for one in ones]) for name, array in both.items())

    def _try(self, shape: tuple[int, ...], count: int, *, skip: int = 0) -> Arrays:
        """A run on `count` random images, which also warms up; nothing where it cannot run."""
        feeds = {}
        for name, (kind, dims) in self.session.inputs.items():
            free = [count, *shape] if len(dims) == 1 + len(shape) else [count, *[1] * len(dims)]
            sizes = [d if isinstance(d, int) else f for d, f in zip(dims, free, strict=False)]
            feeds[name] = _noise(kind, sizes, skip)
        try:
            return self._run(feeds)
        except UpstreamError:
            return {}


def _rows(answer: Arrays, start: int, stop: int) -> Arrays:
    """One caller's rows; an output without rows cannot be shared and fails the batch."""
    sizes = {len(array) if array.ndim else -1 for array in answer.values()}
    if len(sizes) != 1 or stop > sizes.pop():
        raise UpstreamError("the embedded model does not answer row by row", code="INTERNAL")
    return {name: array[start:stop] for name, array in answer.items()}


def _zeros(kind: str, shape: list[int]) -> Array:
    name = kind.removeprefix("tensor(").removesuffix(")")
    try:
        return np.zeros(shape, np.dtype(_NUMPY_NAMES.get(name, name)))
    except TypeError:
        raise ConfigError(f"an embedded model with {kind} inputs is not supported") from None


def _like_each(both: Array, ones: list[Array]) -> bool:
    """Whether row i of an output on two images is the output on image i."""
    if both.shape[:1] != (2,) or any(one.shape != (1, *both.shape[1:]) for one in ones):
        return False
    apart = np.concatenate(ones)
    if both.dtype.kind == "f":
        return bool(np.allclose(both, apart, rtol=1e-3, atol=1e-3))
    return bool((both == apart).all())


def _noise(kind: str, sizes: list[int], skip: int) -> Array:
    """Numbers in [0, 1) that differ from image to image; `skip` starts with a later image."""
    zeros = _zeros(kind, sizes)
    if zeros.dtype == object:
        return np.full(sizes, "", object)
    start = skip * math.prod(sizes[1:])
    values = np.random.default_rng(0).random(start + zeros.size)[start:]
    return values.reshape(sizes).astype(zeros.dtype)


def _read_model(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"upstream: {path} is too large to embed", key="upstream")
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"upstream: {path}: {error.strerror}", key="upstream") from error
