"""A wire that can be cut, clogged and garbled: a TCP proxy on a loopback port."""

import asyncio
import contextlib
import socket
import struct
from types import TracebackType
from typing import Literal, Self

Way = Literal["through", "reset", "swallow", "garble", "slow"]
CHUNK = 1 << 16
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST


class Proxy:
    """Hands bytes on to HOST:PORT as long as `way` says "through".

    reset: connections are refused or cut with RST. swallow: bytes vanish. garble: what comes back
    is noise. slow: what comes back takes `delay` seconds a piece.
    """

    def __init__(self, port: int, *, delay: float = 1.0) -> None:
        self._target, self._delay = port, delay
        self._way: Way = "through"
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.go("reset")
        self._server.close()

    def go(self, way: Way) -> None:
        """From now on; connections that are up are cut where that is the way, or was."""
        if "reset" in (way, self._way) or self._way == "garble":
            for writer in self._writers:
                _cut(writer)
        self._way = way

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._way == "reset":
            _cut(writer)
            return
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            back, forth = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers |= {writer, forth}
            pumps = (self._pump(reader, forth, False), self._pump(back, writer, True))
            await asyncio.gather(*pumps)
            self._writers -= {writer, forth}

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                while self._way == "swallow":
                    await asyncio.sleep(0.05)
                if answer and self._way == "garble":
                    data = bytes(byte ^ 0xFF for byte in data)
                if answer and self._way == "slow":
                    await asyncio.sleep(self._delay)
                writer.write(data)
                await writer.drain()
        writer.close()


def _cut(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
