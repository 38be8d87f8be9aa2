"""Asks an upstream about known images, as the gateway's clients would: for `calibrate` and `check`.

Letters: N images, K classes, C H W.
"""

import asyncio
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from guard.config import Gateway, Input, Model
from guard.errors import ConfigError
from guard.gateway import answers, protocol, tensors
from guard.gateway.loading import connect
from guard.gateway.mapping import AnswerReader
from guard.gateway.upstream import Question, Upstream
from guard.pipeline import Pipeline

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


class Asker:
    """Puts images to one model's upstream and reads its class probabilities."""

    def __init__(self, model: Model, pipeline: Pipeline, upstream: Upstream) -> None:
        self._model, self._upstream = model, upstream
        self._reader = AnswerReader(model.output, pipeline.pack)
        self._datatype = ""

    async def ask(self, images: Bytes) -> Floats:
        """uint8 images (N, H, W, C) to probabilities (N, K) in the pack's class order.

        Raises UpstreamError when the upstream does not answer, or not usefully.
        """
        await self._learn()
        if "N" in self._model.input.layout or self._model.input.encoded:
            return await self._once(images)
        rows = [await self._once(images[index : index + 1]) for index in range(len(images))]
        return np.concatenate(rows)

    async def _once(self, images: Bytes) -> Floats:
        array = wire(images, self._model.input, self._datatype)
        request = protocol.ModelInferRequest(
            model_name=self._model.upstream_model or self._model.name
        )
        given = request.inputs.add(name=self._model.input.tensor, datatype=self._datatype)
        given.shape.extend(array.shape)
        request.raw_input_contents.append(tensors.to_raw(array, self._datatype))
        if self._reader.tensor:
            request.outputs.add(name=self._reader.tensor)
        pixels = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / np.float32(255)
        reply = await self._upstream.infer(
            Question(request, None, pixels, self._model.upstream_timeout)
        )
        answers.check_response(reply.response)
        return self._reader.read(reply.response, len(images))[0]

    async def _learn(self) -> None:
        """The datatype it wants and the output it gives, from its own metadata."""
        if self._datatype:
            return
        about = await self._upstream.metadata()
        names = [given.name for given in about.inputs]
        if names and self._model.input.tensor not in names:
            raise ConfigError(
                f"input.tensor: the upstream has no input {self._model.input.tensor!r}; "
                f"it has {', '.join(names)}",
                key="input.tensor",
            )
        if not self._reader.tensor and about.outputs:
            self._reader.tensor = about.outputs[0].name
        # MLServer need not declare its tensors.
        undeclared = "BYTES" if self._model.input.encoded else "FP32"
        at = names.index(self._model.input.tensor) if names else None
        self._datatype = undeclared if at is None else about.inputs[at].datatype


@contextmanager
def asking(gateway: Gateway, model: Model, pipeline: Pipeline) -> Iterator[Any]:
    """A plain function from uint8 images (N, H, W, C) to probabilities (N, K), while it lasts."""
    with asyncio.Runner() as runner:

        async def start() -> tuple[Asker, Upstream]:
            upstream = connect(gateway, model, pipeline)
            return Asker(model, pipeline, upstream), upstream

        asker, upstream = runner.run(start())
        try:
            yield lambda images: runner.run(asker.ask(images))
        finally:
            runner.run(upstream.close())


def wire(images: Bytes, spec: Input, datatype: str) -> NDArray[Any]:
    """uint8 images (N, H, W, C) as this model's clients would send them."""
    if spec.encoded or datatype == "BYTES":
        return np.array([_png(image) for image in images], object)
    whole = datatype.startswith(("INT", "UINT"))
    scale = spec.scale or (255.0 if whole else 1.0)
    values = images.astype(np.float64) / 255 * scale
    if spec.mean:
        values = (values - np.array(spec.mean)) / np.array(spec.std)
    if spec.layout.endswith("HW"):
        values = values.transpose(0, 3, 1, 2)
    if "N" not in spec.layout:
        values = values[0]
    if whole:
        values = np.round(values)
    return np.ascontiguousarray(values, tensors.datatype(datatype, spec.tensor).array)


def _png(image: Bytes) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()
