"""One ONNX file as a model server of its own, for when there is no Triton at hand.

    python -m guard.gateway.standalone model.onnx --name signs --listen 127.0.0.1:9001

It speaks the same protocol, defends nothing, and stands behind the gateway in `guard demo`.
"""

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np

from guard.config import split_address
from guard.errors import ConfigError, GuardError, UnknownModelError
from guard.gateway import codec, protocol
from guard.gateway.embedded import OnnxUpstream
from guard.gateway.servicer import answered
from guard.gateway.upstream import Question

MAX_BATCH, MAX_QUEUE = 64, 512
MAX_MESSAGE = 64 << 20
LONGEST = 86_400.0  # seconds that a call without deadline may take
GRACE = 1.0  # seconds that running calls get at the end


class OnnxServer:
    """The six calls of the inference protocol over one model."""

    def __init__(self, upstream: OnnxUpstream) -> None:
        self.upstream = upstream

    def handler(self) -> grpc.GenericRpcHandler:
        """Ready for a server."""
        behaviours = {name: getattr(self, f"_{name}") for name in protocol.INFERENCE_METHODS}
        return protocol.service_handler(
            protocol.INFERENCE_METHODS,
            {name: answered(behaviour) for name, behaviour in behaviours.items()},
            raw_requests={"ModelInfer"},
        )

    async def _ServerLive(self, _request: Any, _context: Any) -> protocol.Message:  # noqa: N802
        return protocol.ServerLiveResponse(live=True)

    async def _ServerReady(self, _request: Any, _context: Any) -> protocol.Message:  # noqa: N802
        return protocol.ServerReadyResponse(ready=True)

    async def _ServerMetadata(self, _request: Any, _context: Any) -> protocol.Message:  # noqa: N802
        return protocol.ServerMetadataResponse(name="guard-standalone", version="1")

    async def _ModelReady(self, request: Any, _context: Any) -> protocol.Message:  # noqa: N802
        return protocol.ModelReadyResponse(ready=request.name == self.upstream.model)

    async def _ModelMetadata(self, request: Any, _context: Any) -> protocol.Message:  # noqa: N802
        self._known(request.name)
        return await self.upstream.metadata()

    async def _ModelInfer(self, data: bytes, context: Any) -> protocol.Message:  # noqa: N802
        request = codec.parse(protocol.ModelInferRequest, data)
        self._known(request.model_name)
        codec.check_request(request)
        pixels = np.empty((0,), np.float32)  # encoded pictures are the gateway's affair
        left = context.time_remaining()
        question = Question(request, data, pixels, LONGEST if left is None else left)
        return (await self.upstream.infer(question)).response

    def _known(self, name: str) -> None:
        if name != self.upstream.model:
            raise UnknownModelError(f"no model {name[:100]!r} here")


@contextlib.asynccontextmanager
async def serving(path: Path, *, name: str, listen: str) -> AsyncIterator[str]:
    """Serves the file inside the `async with`; yields HOST:PORT. Port 0 picks one.

    Raises PackError or ConfigError when the file does not load or the port is taken.
    """
    host, _ = split_address(listen, key="listen")
    upstream = OnnxUpstream(path, model=name, shape=(), max_batch=MAX_BATCH, max_queue=MAX_QUEUE)
    options = [("grpc.max_receive_message_length", MAX_MESSAGE), ("grpc.so_reuseport", 0)]
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((OnnxServer(upstream).handler(),))
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as error:
        raise ConfigError(f"listen: cannot listen on {listen}", key="listen") from error
    await server.start()
    try:
        yield f"{host}:{port}"
    finally:
        await server.stop(GRACE)
        await upstream.close()


async def _serve(path: Path, name: str, listen: str) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serving(path, name=name, listen=listen) as address:
        sys.stdout.write(f"serving {name} on {address}\n")
        sys.stdout.flush()
        await stop.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; 1 when that cannot begin."""
    parser = argparse.ArgumentParser(prog="guard.gateway.standalone", description=__doc__)
    parser.add_argument("model", type=Path, help="ONNX file")
    parser.add_argument("--name", required=True, help="the model's name on the wire")
    parser.add_argument("--listen", default="127.0.0.1:9001", help="HOST:PORT")
    given = parser.parse_args(arguments)
    try:
        asyncio.run(_serve(given.model, given.name, given.listen))
    except GuardError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
