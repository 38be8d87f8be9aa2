"""A caller for the tests: requests as messages, over a real connection, any call by name."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from guard.client import Answer, read_answer
from guard.gateway import codec, protocol


def infer_request(
    images: NDArray[Any], *, model: str = "tiny", outputs: Sequence[str] = (), **fields: Any
) -> protocol.Message:
    """A ModelInferRequest with raw contents."""
    request = protocol.ModelInferRequest(model_name=model, **fields)
    tensor = codec.pack_tensor(images)
    request.inputs.add(name="images", datatype=tensor.datatype, shape=tensor.shape)
    request.raw_input_contents.append(tensor.data)
    for name in outputs:
        request.outputs.add(name=name)
    return request


class Caller:
    """An asynchronous client of HOST:PORT; `trailing` is the last call's trailing metadata."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = grpc.aio.insecure_channel(
            address, [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        )
        self.leading: dict[str, Any] = {}
        self.trailing: dict[str, Any] = {}

    async def __aenter__(self) -> "Caller":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.channel.close()

    async def send(self, name: str, data: bytes, *, timeout: float = 10, **options: Any) -> bytes:
        """Any unary call of the inference service, as bytes."""
        call = self.channel.unary_unary(f"/{protocol.INFERENCE_SERVICE}/{name}")(
            data, timeout=timeout, **options
        )
        try:
            answer: bytes = await call
        finally:
            self.leading = dict(await call.initial_metadata() or ())
            self.trailing = dict(await call.trailing_metadata() or ())
        return answer

    async def call(self, name: str, /, *, timeout: float = 10, **fields: Any) -> protocol.Message:
        """One of the six calls, with a request of these fields."""
        method = protocol.INFERENCE_METHODS[name]
        data = method.request(**fields).SerializeToString()
        return method.response.FromString(await self.send(name, data, timeout=timeout))

    async def infer(self, images: NDArray[Any], **options: Any) -> Answer:
        """Ask "tiny" about images; `outputs`, `model`, `metadata`, `timeout` and request fields."""
        sending = {k: options.pop(k) for k in ("timeout", "metadata") if k in options}
        request = infer_request(images, **options)
        data = await self.send("ModelInfer", request.SerializeToString(), **sending)
        return read_answer(protocol.ModelInferResponse.FromString(data))

    async def refused(self, images: NDArray[Any], **options: Any) -> tuple[str, str, str]:
        """The status, the ErrorInfo's reason and the message of a request that must fail."""
        try:
            answer = await self.infer(images, **options)
        except grpc.aio.AioRpcError as error:
            return failure_of(error)
        raise AssertionError(f"answered: {answer}")


def failure_of(error: grpc.aio.AioRpcError) -> tuple[str, str, str]:
    """Status, ErrorInfo reason and message of a failed call."""
    details = dict(error.trailing_metadata() or ()).get(protocol.STATUS_DETAILS)
    info = protocol.error_info(details) if details else None
    return error.code().name, info.reason if info else "", error.details() or ""


def equal(left: Any, right: Any) -> bool:
    """Whether two arrays are the same bits."""
    return bool(np.array_equal(left, right)) and left.dtype == right.dtype
