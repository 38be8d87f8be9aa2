"""What a request has to get past before the defence looks at it: limits, exposure, decoding."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guard.config import Model
from guard.errors import InputError
from guard.gateway import codec, protocol
from guard.gateway.mapping import pixel_datatypes, pixel_spec
from guard.gateway.status import NotExposedError
from guard.images import to_pixels
from guard.verdict import Policy

Floats = NDArray[np.float32]

INLINE_BYTES = 256 << 10  # larger tensors, and all encoded pictures, are decoded off the loop
SHOWN = {"none": (), "decision": ("guard_decision",), "full": codec.GUARD_OUTPUTS}


class Intake:
    """One model's door: `admit` a request, then read its `pixels` (N, C, H, W)."""

    def __init__(self, model: Model, policy: Policy, shape: tuple[int, int, int]) -> None:
        self._model = model
        self._tensor = model.input.tensor
        self._shown = SHOWN[policy.expose]
        self._spec = pixel_spec(model, shape)
        self._datatypes = pixel_datatypes(model.input)
        self._threads = ThreadPoolExecutor(2, thread_name_prefix=f"decode-{model.name}")

    def admit(self, request: protocol.Message, data: bytes) -> None:
        """Refuse what is too large, malformed, or asks for more than may be seen."""
        limit = self._model.max_request_bytes
        if limit is not None and len(data) > limit:
            raise InputError(f"{len(data)} bytes are too many, this model takes {limit} at most")
        codec.check_request(request)
        self._check_count(self.count(request))
        for output in request.outputs:
            if output.name in codec.GUARD_OUTPUTS and output.name not in self._shown:
                raise NotExposedError(f"{self._model.name} does not show {output.name}")

    def count(self, request: protocol.Message) -> int:
        """The images that a request claims to carry; 1 where it makes no sense."""
        for given in request.inputs:
            if given.name == self._tensor and given.shape:
                if given.datatype == "BYTES":
                    return int(max(given.shape))
                return int(given.shape[0]) if "N" in self._model.input.layout else 1
        return 1

    async def pixels(self, request: protocol.Message) -> Floats:
        """The images of an admitted request; what takes long is done off the loop."""
        if self._model.input.encoded or request.ByteSize() > INLINE_BYTES:
            return await self._in_thread(self._read, request)
        return self._read(request)

    async def convert(self, images: NDArray[Any]) -> Floats:
        """Images as this model's clients send them, from an array."""
        self._check_count(images.shape[0] if images.ndim else 1)
        return await self._in_thread(to_pixels, images, self._spec)

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False)

    def _check_count(self, count: int) -> None:
        limit = self._model.max_images
        if count > limit:
            message = f"{self._tensor}: {count} images are too many, at most {limit}"
            raise InputError(message, tensor=self._tensor)

    def _read(self, request: protocol.Message) -> Floats:
        array = codec.read_input(request, self._tensor, datatypes=self._datatypes)
        return to_pixels(array, self._spec, tensor=self._tensor)

    async def _in_thread(self, function: Any, *arguments: Any) -> Floats:
        loop = asyncio.get_running_loop()
        pixels: Floats = await loop.run_in_executor(self._threads, function, *arguments)
        return pixels
