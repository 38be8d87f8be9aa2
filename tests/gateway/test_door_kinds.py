"""The door around calls of every kind: they answer as without it, and give their places back."""

from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import pytest

from guard.config.limits import Limits
from guard.errors import InputError
from guard.gateway.door import MAX_METADATA, Door, decoded, refusing
from tests.gateway.wire import failure_of

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


def _bytes(answer: str | bytes) -> bytes:
    """An answer; of a call that failed there is nothing left to send."""
    return answer if isinstance(answer, bytes) else answer.encode()


class Echo(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """A method of each kind; streams answer as they read, one of them without being a generator."""

    def __init__(self, seen: list[int], door: Door) -> None:
        self._seen, self._door = seen, door

    def service(self, details: Any) -> grpc.RpcMethodHandler | None:
        """The handler by the call's name."""
        kind = details.method.rpartition("/")[2]
        if kind not in (*KINDS, "written"):
            return None
        name = "stream_stream" if kind == "written" else kind
        make = getattr(grpc, f"{name}_rpc_method_handler")
        return make(getattr(self, kind), bytes.decode, _bytes)

    async def unary_unary(self, request: str, _context: Any) -> str:
        """One for one."""
        self._seen.append(self._door.shares.taken)
        return request + "!"

    async def unary_stream(self, request: str, _context: Any) -> AsyncIterator[str]:
        """Two for one."""
        self._seen.append(self._door.shares.taken)
        yield request
        yield request + "!"

    async def stream_unary(self, requests: Any, _context: Any) -> str:
        """One for all."""
        self._seen.append(self._door.shares.taken)
        return "".join([one async for one in requests])

    async def stream_stream(self, requests: Any, _context: Any) -> AsyncIterator[str]:
        """One for each."""
        self._seen.append(self._door.shares.taken)
        async for one in requests:
            yield one + "!"

    async def written(self, requests: Any, context: Any) -> None:
        """The same, written instead of yielded."""
        async for one in requests:
            await context.write(one + "!")


@pytest.fixture
async def place() -> AsyncIterator[SimpleNamespace]:
    """A server behind a door of two places, and a channel to it."""
    seen: list[int] = []
    door = Door(Limits(max_open_calls=2, body_timeout=5))
    server = grpc.aio.server(interceptors=[door])
    server.add_generic_rpc_handlers((Echo(seen, door),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_http_proxy", 0)])
    yield SimpleNamespace(channel=channel, seen=seen, door=door)
    await channel.close()
    await server.stop(0)


async def asked(
    channel: Any, kind: str, name: str = "", stream: Sequence[bytes] = (b"a", b"b"), **more: Any
) -> list[bytes]:
    """What a call answers to "a", or to "a" and "b" as a stream."""
    method = getattr(channel, kind)(f"/some.Service/{name or kind}")
    given = method(iter(stream) if kind.startswith("stream") else b"a", timeout=10, **more)
    if kind.endswith("stream"):
        return [answer async for answer in given]
    return [await given]


async def test_every_kind_answers_and_holds_one_place(place: SimpleNamespace) -> None:
    """One place while it runs, none after it."""
    expected = {
        "unary_unary": [b"a!"], "unary_stream": [b"a", b"a!"],
        "stream_unary": [b"ab"], "stream_stream": [b"a!", b"b!"],
    }  # fmt: skip
    for kind in KINDS:
        place.seen.clear()
        assert await asked(place.channel, kind) == expected[kind]
        assert place.seen == [1], kind
        assert place.door.shares.taken == 0
    assert await asked(place.channel, "stream_stream", "written") == [b"a!", b"b!"]
    assert place.door.shares.taken == 0


async def test_no_kind_gets_in_when_all_places_are_taken(place: SimpleNamespace) -> None:
    """Refused with a time to come back; with a place free again it answers."""
    assert place.door.shares.take("a")
    assert place.door.shares.take("a")
    for kind in KINDS:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            # Nothing is sent: grpc.aio's client makes an INTERNAL of its own where it still writes.
            await asked(place.channel, kind, stream=())
        assert failure_of(refused.value)[0] == "RESOURCE_EXHAUSTED"
    place.door.shares.give("a")
    assert await asked(place.channel, "unary_unary") == [b"a!"]


async def test_what_cannot_be_read_is_the_callers_mistake(place: SimpleNamespace) -> None:
    """Bytes that are no message; a call that does not exist stays one that does not."""
    call = place.channel.unary_unary("/some.Service/unary_unary")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(b"\xff", timeout=10)
    assert failure_of(refused.value)[0] == "INVALID_ARGUMENT"
    assert refused.value.details() == "the request cannot be parsed"
    assert place.door.shares.taken == 0
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await asked(place.channel, "unary_unary", "nothing")
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(InputError, match="cannot be parsed"):
        decoded(b"\xff", bytes.decode)
    assert decoded(b"a", bytes.decode) == "a"


async def test_metadata_may_be_so_large() -> None:
    """Names and values together; at the bound the call goes on, one byte more ends it."""
    door = Door(Limits())

    async def found(_details: Any) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(lambda _request, _context: None)

    async def handler(size: int) -> grpc.RpcMethodHandler:
        given = (("key", "x" * (size - 3)),)
        details = SimpleNamespace(method="/a/b", invocation_metadata=given)
        behind = await door.intercept_service(found, details)
        assert behind is not None
        return behind

    assert MAX_METADATA == 16384
    assert (await handler(MAX_METADATA)).stream_unary is not None
    assert (await handler(MAX_METADATA + 1)).stream_stream is not None
    nothing = SimpleNamespace(method="/a/b", invocation_metadata=None)
    assert await door.intercept_service(found, nothing) is not None


async def test_a_refusal_is_said_to_each_caller() -> None:
    """The same failure for all that share it, made once."""
    said: list[tuple[str, Any]] = []

    class Context:
        def __getattr__(self, name: str) -> Any:
            return lambda *args: said.append((name, args))

    handler = refusing(InputError("no"))
    for _ in range(2):
        assert await handler.stream_stream(None, Context()) is None
    assert said.count(("set_code", (grpc.StatusCode.INVALID_ARGUMENT,))) == 2
    assert said.count(("set_details", ("no",))) == 2
