"""Requests that arrive whether or not the last were answered, from a process of its own.

python -m tests.bench.arrivals HOST:PORT REQUESTS DEADLINE RATE:SECONDS... > FILE.npy

One phase follows the other; arrivals are a Poisson process, the same in every run. Every row of the
result: phase, when it was due and when it was really sent (seconds from the start), how long the
answer took from when it was due, gRPC status number, and 1 where a refusal said when to come back.
REQUESTS is a file of `load.write_requests`. The frames are made beforehand and written by hand: a
gRPC client would take from the server's cores what it costs to send five times too much.
"""

import asyncio
import itertools
import struct
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import uvloop
from numpy.typing import NDArray

from tests.bench.load import METHOD, read_requests

CONNECTIONS = 16
COLUMNS = ("phase", "due", "sent", "seconds", "code", "told")
LOST = 14  # no status at all: gRPC's UNAVAILABLE
LATE = 4
LINGER = 2.0  # seconds after the last deadline
FRAME = 16_384  # bytes of a DATA frame
DATA, HEADERS, RESET, SETTINGS, PING, AWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
Rows = NDArray[np.float64]


def schedule(phases: Sequence[tuple[float, float]]) -> Rows:
    """When each request is due, and its phase: (N, 2), in order."""
    random, start, parts = np.random.default_rng(0), 0.0, []
    for index, (rate, seconds) in enumerate(phases):
        count = random.poisson(rate * seconds)
        due = start + np.sort(random.uniform(0, seconds, count))
        parts.append(np.stack([np.full(count, index), due], axis=1))
        start += seconds
    return np.concatenate(parts)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def head(authority: str, deadline: float) -> bytes:
    """The headers of a call, in HPACK without its table (RFC 7541, 6.2.2)."""

    def text(value: str) -> bytes:
        return bytes([len(value)]) + value.encode()

    block = b"\x83\x86" + b"\x04" + text(METHOD) + b"\x01" + text(authority)
    for name, value in (
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("grpc-timeout", f"{int(deadline * 1000)}m"),
    ):
        block += b"\x00" + text(name) + text(value)
    return block


class Connection(asyncio.Protocol):
    """One HTTP/2 connection that sends calls and takes down how they end."""

    def __init__(self, block: bytes, bodies: Sequence[bytes], rows: list[list[float]]) -> None:
        self._block, self._bodies, self._rows = block, itertools.cycle(bodies), rows
        self._open: dict[int, int] = {}  # stream to row
        self._waiting: deque[int] = deque()  # rows, for a stream or for the window
        self._stream, self._streams, self._window, self._begin = 1, 100, 65_535, 0.0
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Our settings: no table for headers, windows that never close."""
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        ours = struct.pack(">HIHIHI", 1, 0, 2, 0, 4, (1 << 31) - 1)
        wide = struct.pack(">I", 1 << 30)
        hello = frame(SETTINGS, 0, 0, ours) + frame(WINDOW, 0, 0, wide)
        self._transport.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + hello)

    def connection_lost(self, _error: Exception | None) -> None:
        """Everything open is lost."""
        for stream in list(self._open):
            self._end(stream, LOST, 0)

    def start(self, begin: float) -> None:
        """From now on times count from `begin`."""
        self._begin = begin

    def call(self, row: int) -> None:
        """Send the request of this row, as soon as the server lets us."""
        self._waiting.append(row)
        self._send()

    def _send(self) -> None:
        parts = []
        while self._waiting and len(self._open) < self._streams:
            body = next(self._bodies)
            if len(body) > self._window:
                break
            row, stream = self._waiting.popleft(), self._stream
            self._stream += 2
            self._window -= len(body)
            self._open[stream] = row
            self._rows[row][2] = time.perf_counter() - self._begin
            parts.append(frame(HEADERS, END_HEADERS, stream, self._block))
            for at in range(0, len(body), FRAME):
                last = END_STREAM if at + FRAME >= len(body) else 0
                parts.append(frame(DATA, last, stream, body[at : at + FRAME]))
        if parts:
            self._transport.write(b"".join(parts))

    def data_received(self, data: bytes) -> None:
        """Frames from the server; of headers only what ends a call matters."""
        self._buffer += data
        at, buffer = 0, self._buffer
        while len(buffer) - at >= 9:
            length = int.from_bytes(buffer[at : at + 3], "big")
            if len(buffer) - at < 9 + length:
                break
            kind, flags, stream = struct.unpack_from(">BBI", buffer, at + 3)
            self._frame(kind, flags, stream, buffer[at + 9 : at + 9 + length])
            at += 9 + length
        self._buffer = buffer[at:]
        self._send()

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == HEADERS and flags & END_STREAM:
            place = payload.find(b"grpc-status") + len(b"grpc-status")
            code = int(payload[place + 1 : place + 1 + payload[place]])
            self._end(stream, code, b"grpc-retry-pushback-ms" in payload)
        elif kind == RESET:
            self._end(stream, LOST, 0)
        elif kind == SETTINGS and not flags & ACK:
            for name, value in struct.iter_unpack(">HI", payload):
                self._streams = value if name == 3 else self._streams
            self._transport.write(frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self._transport.write(frame(PING, ACK, 0, payload))
        elif kind == WINDOW and stream == 0:
            self._window += int.from_bytes(payload, "big")

    def _end(self, stream: int, code: int, told: int) -> None:
        row = self._open.pop(stream, None)
        if row is not None:
            due = self._rows[row][1]
            self._rows[row][3:] = [time.perf_counter() - self._begin - due, code, told]


async def send(
    address: str, requests: Sequence[bytes], deadline: float, arrivals: Rows
) -> list[list[float]]:
    """All of them, each at its time; rows of COLUMNS. What never ends is LATE."""
    rows = [[phase, due, due, deadline, LATE, 0] for phase, due in arrivals.tolist()]
    bodies = [struct.pack(">BI", 0, len(request)) + request for request in requests]
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()

    def connection() -> Connection:
        return Connection(head(address, deadline), bodies, rows)

    connections = [
        (await loop.create_connection(connection, host, int(port)))[1] for _ in range(CONNECTIONS)
    ]
    await asyncio.sleep(0.2)  # their settings come
    begin = time.perf_counter() + 0.1
    for each in connections:
        each.start(begin)
    for row, (_, due) in enumerate(arrivals.tolist()):
        if (left := begin + due - time.perf_counter()) > 0:
            await asyncio.sleep(left)
        connections[row % CONNECTIONS].call(row)
    await asyncio.sleep(deadline + LINGER)
    for row in rows:
        row[4] = LATE if row[4] == 0 and row[3] > deadline else row[4]
    return rows


def main(address: str, requests: str, deadline: str, *phases: str) -> None:
    """Send, and write the rows to the standard output."""
    pairs = [(float(rate), float(seconds)) for rate, seconds in (p.split(":") for p in phases)]
    arrivals = schedule(pairs)
    found = read_requests(Path(requests))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rows = runner.run(send(address, found, float(deadline), arrivals))
    np.save(sys.stdout.buffer, np.array(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
