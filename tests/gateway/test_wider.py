"""Triton's wider service: what may pass, and what never does."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from guard.gateway import protocol
from guard.testing import FakeUpstream, clean_images
from tests.gateway.setting import Setting, Settings
from tests.gateway.wire import failure_of, infer_request

READS = ["ModelConfig", "ModelStatistics", "RepositoryIndex"]
STREAM = f"/{protocol.INFERENCE_SERVICE}/ModelStreamInfer"


def named(name: str, **fields: Any) -> bytes:
    """A request that begins with a model's name, and a field that only Triton knows."""
    request = protocol.ModelReadyRequest(name=name, **fields)
    return bytes(request.SerializeToString()) + b"\x98\x06\x01"


async def refused(here: Setting, name: str, data: bytes = b"") -> tuple[str, str, str]:
    """How a call fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await here.caller.send(name, data)
    return failure_of(caught.value)


@pytest.mark.parametrize("name", protocol.REFUSED_METHODS)
async def test_what_would_carry_pixels_or_models_past_the_defence_is_refused(
    tiny_pack: Path, name: str
) -> None:
    """No setting opens these, and the message says why."""
    async with FakeUpstream() as other, Settings() as settings:
        gateway = {"passthrough": other.address, "passthrough_rpcs": [*READS, "ModelStreamInfer"]}
        here = await settings.start(tiny_pack, gateway=gateway)
        code, reason, message = await refused(here, name)
        assert (code, reason) == ("UNIMPLEMENTED", "NOT_OFFERED")
        assert message.startswith(f"{name}: ")


@pytest.mark.parametrize("name", READS)
async def test_nothing_passes_that_is_not_listed(tiny_pack: Path, name: str) -> None:
    """The default list is empty; the message names the setting."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack)
        code, _, message = await refused(here, name, named("tiny"))
        assert (code, "passthrough_rpcs" in message) == ("UNIMPLEMENTED", True)


async def test_a_call_about_a_guarded_model_goes_to_its_upstream(tiny_pack: Path) -> None:
    """As bytes, with only the model's name changed; unknown fields survive."""
    async with Settings() as settings:
        gateway = {"passthrough_rpcs": READS}
        here = await settings.start(tiny_pack, gateway=gateway, upstream_model="resnet")
        answer = await here.caller.send("ModelConfig", named("tiny", version="3"))
        assert answer == named("resnet", version="3")
        assert (await refused(here, "ModelConfig", named("resnet")))[0] == "NOT_FOUND"
        assert (await refused(here, "RepositoryIndex"))[0] == "UNIMPLEMENTED"


async def test_a_call_about_anything_else_goes_to_the_pass_through(tiny_pack: Path) -> None:
    """Other models' statistics and the index, byte for byte."""
    async with FakeUpstream() as other, Settings() as settings:
        gateway = {"passthrough": other.address, "passthrough_rpcs": READS}
        here = await settings.start(tiny_pack, gateway=gateway)
        for name in READS:
            assert await here.caller.send(name, named("text")) == named("text")


async def test_the_ensemble_has_no_server_to_ask(tiny_pack: Path) -> None:
    """A call about a model without a server behind it says so."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack, alone=True, gateway={"passthrough_rpcs": READS})
        assert "no server" in (await refused(here, "ModelConfig", named("tiny")))[2]


async def stream(here: Setting, *messages: bytes, stay: bool = False) -> list[bytes]:
    """What comes back on a stream that sends these messages, and stays open if it should."""

    async def requests() -> Any:
        for message in messages:
            yield message
        if stay:
            await asyncio.Event().wait()

    call = here.caller.channel.stream_stream(STREAM)(requests(), timeout=5)
    return [answer async for answer in call]


def message(model: str) -> bytes:
    """A request on a stream."""
    return bytes(infer_request(clean_images([0]), model=model).SerializeToString())


async def test_a_stream_passes_for_models_that_are_not_guarded(tiny_pack: Path) -> None:
    """Both directions, message by message."""
    async with FakeUpstream() as other, Settings() as settings:
        gateway = {"passthrough": other.address, "passthrough_rpcs": ["ModelStreamInfer"]}
        here = await settings.start(tiny_pack, gateway=gateway)
        sent = [message("text"), message("speech")]
        assert await stream(here, *sent) == sent


@pytest.mark.parametrize("model", ["tiny", "resnet"])
async def test_a_guarded_model_is_refused_on_a_stream_wherever_it_appears(
    tiny_pack: Path, model: str
) -> None:
    """Every message is looked at, not the first alone, under both of the model's names."""
    async with FakeUpstream() as other, Settings() as settings:
        gateway = {"passthrough": other.address, "passthrough_rpcs": ["ModelStreamInfer"]}
        here = await settings.start(tiny_pack, gateway=gateway, upstream_model="resnet")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream(here, message("text"), message(model), stay=True)
        assert failure_of(caught.value)[:2] == ("UNIMPLEMENTED", "NOT_OFFERED")
        assert message(model) not in other.received


async def test_garbage_and_shared_memory_on_a_stream_are_refused(tiny_pack: Path) -> None:
    """The same words as for single requests."""
    shared = infer_request(clean_images([0]), model="text")
    shared.inputs[0].parameters["shared_memory_offset"].int64_param = 0
    async with FakeUpstream() as other, Settings() as settings:
        gateway = {"passthrough": other.address, "passthrough_rpcs": ["ModelStreamInfer"]}
        here = await settings.start(tiny_pack, gateway=gateway)
        for spoilt in (b"\xff\xff", bytes(shared.SerializeToString())):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stream(here, spoilt, stay=True)
            assert failure_of(caught.value)[0] == "INVALID_ARGUMENT"


@pytest.mark.parametrize("gateway", [{}, {"passthrough_rpcs": ["ModelStreamInfer"]}])
async def test_no_stream_without_permission_and_somewhere_to_go(
    tiny_pack: Path, gateway: dict[str, Any]
) -> None:
    """UNIMPLEMENTED, as from a server that has no streams."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack, gateway=gateway)
        call = here.caller.channel.stream_stream(STREAM)(timeout=5)
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
