"""The six calls: readiness, metadata, models that are not ours, and how many requests at once."""

import asyncio
from pathlib import Path

import grpc
import grpc.aio
import pytest

from guard.gateway import protocol
from guard.gateway.server import running
from guard.testing import FakeUpstream, clean_images, gateway_config
from tests.gateway.setting import Settings, until
from tests.gateway.wire import Caller, failure_of, infer_request


async def test_readiness_is_the_upstreams(tiny_pack: Path) -> None:
    """Live as long as the process answers; ready only while the upstream says so."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack)
        assert (await here.caller.call("ServerLive")).live
        assert (await here.caller.call("ServerReady")).ready
        assert (await here.caller.call("ModelReady", name="tiny")).ready
        here.upstream.is_ready = False
        await asyncio.sleep(0.6)
        assert (await here.caller.call("ServerLive")).live
        assert not (await here.caller.call("ServerReady")).ready
        assert not (await here.caller.call("ModelReady", name="tiny")).ready


async def test_metadata_of_server_and_model(tiny_pack: Path) -> None:
    """The gateway names itself; a model's inputs and outputs are the upstream's, plus guard's."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack)
        assert (await here.caller.call("ServerMetadata")).name == "guard"
        about = await here.caller.call("ModelMetadata", name="tiny")
        assert (about.platform, list(about.versions)) == ("fake", ["7"])
        names = [output.name for output in about.outputs]
        assert names == [
            "probabilities",
            "label",
            "guard_decision",
            "guard_p_value",
            "guard_scores",
        ]


async def test_metadata_of_the_ensemble(tiny_pack: Path) -> None:
    """Without an upstream the pack says what goes in and out."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack, alone=True, expose="none")
        about = await here.caller.call("ModelMetadata", name="tiny")
        assert [(i.name, i.datatype, list(i.shape)) for i in about.inputs] == [
            ("images", "FP32", [-1, 3, 8, 8])
        ]
        assert [o.name for o in about.outputs] == ["probabilities", "label"]
        code, _, _ = await here.caller.refused(clean_images([0]), model_version="2")
        assert code == "NOT_FOUND"


@pytest.mark.parametrize("name", ["ModelReady", "ModelMetadata"])
async def test_an_unknown_model_is_not_found(tiny_pack: Path, name: str) -> None:
    """NOT_FOUND, with the name that was asked for."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await here.caller.call(name, name="other")
        assert failure_of(caught.value) == ("NOT_FOUND", "UNKNOWN_MODEL", "no model 'other' here")
        assert (await here.caller.refused(clean_images([0]), model="other"))[0] == "NOT_FOUND"


async def test_what_is_not_defended_passes_through_where_the_config_says_so(
    tiny_pack: Path,
) -> None:
    """Another model on the same server is answered by it, whatever its tensors are."""
    async with FakeUpstream() as other, Settings() as settings:
        here = await settings.start(tiny_pack, gateway={"passthrough": other.address})
        answer = await here.caller.infer(clean_images([2]), model="text", id="9")
        assert (answer.model, answer.request_id) == ("text", "9")
        assert (await here.caller.call("ModelReady", name="text")).ready
        assert (await here.caller.call("ModelMetadata", name="text")).name == "text"
        assert len(other.requests) == 1
        assert not here.upstream.requests


async def test_no_way_around_the_defence_by_the_upstreams_own_name(tiny_pack: Path) -> None:
    """A guarded model under its name at the upstream is not reachable through the pass-through."""
    async with FakeUpstream() as upstream:
        config = gateway_config(
            tiny_pack,
            upstream=upstream.address,
            upstream_model="resnet",
            gateway={"passthrough": upstream.address},
        )
        async with running(config) as gateway, Caller(gateway.address) as caller:
            for model in ("resnet", ""):
                code, reason, _ = await caller.refused(clean_images([0]), model=model)
                assert (code, reason) == ("NOT_FOUND", "UNKNOWN_MODEL")
            assert not upstream.requests


async def test_shared_memory_is_refused_in_passing_too(tiny_pack: Path) -> None:
    """Memory regions belong to one server and would carry pixels past the gateway."""
    async with FakeUpstream() as other, Settings() as settings:
        here = await settings.start(tiny_pack, gateway={"passthrough": other.address})
        request = infer_request(clean_images([0]), model="text")
        request.inputs[0].parameters["shared_memory_region"].string_param = "region"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await here.caller.send("ModelInfer", request.SerializeToString())
        assert failure_of(caught.value)[0] == "INVALID_ARGUMENT"


async def test_more_requests_than_allowed_are_refused_with_a_reason(tiny_pack: Path) -> None:
    """max_in_flight bounds the work; health and readiness still answer."""
    async with Settings() as settings:
        here = await settings.start(
            tiny_pack, FakeUpstream(delay=0.5), gateway={"max_in_flight": 2}
        )
        asking = [asyncio.create_task(here.caller.infer(clean_images([0]))) for _ in range(5)]
        await until(lambda: sum(task.done() for task in asking) == 3)
        assert (await here.caller.call("ServerLive")).live
        outcomes = await asyncio.gather(*asking, return_exceptions=True)
        refused = [o for o in outcomes if isinstance(o, grpc.aio.AioRpcError)]
        assert [failure_of(error)[:2] for error in refused] == [
            ("RESOURCE_EXHAUSTED", "OVERLOADED")
        ] * 3


async def test_bytes_that_are_no_request_are_the_callers_mistake(tiny_pack: Path) -> None:
    """Every call answers INVALID_ARGUMENT to garbage, not INTERNAL."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack)
        for name in ("ModelInfer", "ModelReady", "ModelMetadata"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await here.caller.send(name, b"\xff" * 9)
            assert failure_of(caught.value)[0] == "INVALID_ARGUMENT"
        assert protocol.ModelInferResponse.FromString(
            await here.caller.send(
                "ModelInfer", infer_request(clean_images([0])).SerializeToString()
            )
        ).outputs
