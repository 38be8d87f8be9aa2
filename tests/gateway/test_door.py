"""Open calls: who gets in, how long a request may take to arrive, how much may come with it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from guard.config.limits import Limits
from guard.gateway import protocol
from guard.gateway.shares import REGULAR
from guard.testing import FakeUpstream, clean_images
from tests.abuse.attackers import ATTACKERS, connected, message
from tests.gateway.setting import Setting, Settings, counted, until
from tests.gateway.wire import Caller, failure_of, infer_request

INFER = f"/{protocol.INFERENCE_SERVICE}/ModelInfer"
LIMITS = Limits(max_open_calls=20, max_connections=6, body_timeout=0.4)


@pytest.fixture
async def here(tiny_pack: Path) -> AsyncIterator[Setting]:
    """A gateway with few places."""
    async with Settings() as settings:
        yield await settings.start(tiny_pack, alone=True, gateway={"limits": LIMITS})


async def _opened(caller: Caller) -> grpc.aio.StreamUnaryCall:
    """A call whose head is on its way and whose body never comes."""
    call = caller.channel.stream_unary(INFER)()
    await call.wait_for_connection()
    return call


async def test_calls_without_bodies_do_not_lock_out_another_connection(here: Setting) -> None:
    """One connection that opens all the calls it can leaves the others their share."""
    async with connected(_address(here)) as greedy:
        await _often(here)
        await greedy.send(*[greedy.headers() for _ in range(40)])
        await until(lambda: counted("guard_open_calls") >= 9)
        assert len((await here.caller.infer(clean_images([2]))).outputs["label"]) == 1
        assert counted("guard_open_calls") < 20
    await until(lambda: counted("guard_open_calls") == 0)


async def test_a_body_that_does_not_come_ends_the_call(here: Setting) -> None:
    """After `body_timeout` the caller learns that its request did not arrive."""
    call = await _opened(here.caller)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    assert failure_of(refused.value)[0] == "DEADLINE_EXCEEDED"
    assert "did not arrive within 0.4 s" in refused.value.details()
    assert counted("guard_open_calls") == 0


async def test_a_call_without_a_request_is_told_so(here: Setting) -> None:
    """Ending the stream before the first message is the caller's mistake, not ours."""
    call = here.caller.channel.stream_unary(INFER)(iter(()))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "without a request" in refused.value.details()


async def test_fat_metadata_is_refused(here: Setting) -> None:
    """More than 16 KiB beside the request: INVALID_ARGUMENT, whatever gRPC itself lets in."""
    data = infer_request(clean_images([1])).SerializeToString()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await here.caller.send("ModelInfer", data, metadata=(("x-filler", "a" * 17_000),))
    assert refused.value.code() in (
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.RESOURCE_EXHAUSTED,  # gRPC's own limit, where it sees it
    )


async def test_one_connection_too_many_is_closed(here: Setting) -> None:
    """Beyond `max_connections` a new connection ends at once; those who are in stay in."""
    address = _address(here)
    await here.caller.infer(clean_images([1]))
    async with contextlib.AsyncExitStack() as others:
        for _ in range(5):
            await others.enter_async_context(connected(address))
        with contextlib.suppress(OSError):
            last = await others.enter_async_context(connected(address))
            await until(lambda: last.closed)
        assert len((await here.caller.infer(clean_images([2]))).outputs["label"]) == 1


@pytest.mark.parametrize(
    "attack", ["heads without bodies", "slow bodies", "a megabyte of metadata"]
)
async def test_raw_attackers_leave_a_healthy_client_alone(here: Setting, attack: str) -> None:
    """Two hostile connections in raw frames: every honest request is still answered."""
    loop = asyncio.get_running_loop()
    request = infer_request(clean_images([1])).SerializeToString()
    await _often(here)
    ends = loop.time() + 1
    hostile = [ATTACKERS[attack](_address(here), request, ends) for _ in range(2)]
    tasks = [asyncio.ensure_future(one) for one in hostile]
    while loop.time() < ends:
        assert len((await here.caller.infer(clean_images([2]))).outputs["label"]) == 1
        await asyncio.sleep(0.02)
    await asyncio.gather(*tasks)


async def _often(here: Setting) -> None:
    """Calls until the gateway knows this connection as a regular one."""
    for _ in range(REGULAR):
        await here.caller.infer(clean_images([1]))


def _address(here: Setting) -> str:
    return here.caller.address


async def test_one_connection_cannot_keep_all_handlers_busy(tiny_pack: Path) -> None:
    """Valid requests in any number from one connection leave room for another's."""
    async with Settings() as settings:
        fake = FakeUpstream(delay=0.2)
        here = await settings.start(tiny_pack, fake, gateway={"max_in_flight": 6})
        await _often(here)
        request = message(infer_request(clean_images([0])).SerializeToString())
        async with connected(here.caller.address) as greedy:
            for _ in range(20):
                await greedy.send(greedy.headers(), *greedy.body(request, ended=True))
            await until(lambda: counted("guard_in_flight") >= 3)
            assert counted("guard_in_flight") < 6
            assert len((await here.caller.infer(clean_images([2]))).outputs["label"]) == 1
