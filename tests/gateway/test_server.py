"""The gateway as a process: start, health, reflection, limits, drain."""

import asyncio
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import REGISTRY

from guard import calibration
from guard.calibration import Calibration
from guard.config import Tls
from guard.errors import ConfigError, PackError
from guard.gateway.server import running
from guard.pack import Pack
from guard.testing import (
    FakeUpstream,
    classifier_onnx,
    clean_images,
    gateway_config,
    suspicious_images,
)
from tests.gateway.setting import Settings, until
from tests.gateway.wire import Caller, equal, failure_of

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def test_the_line_on_starting_names_model_address_and_provider(tiny_pack: Path) -> None:
    """Port 0 is replaced by the one in use, the provider is read back from the session."""
    async with running(gateway_config(tiny_pack)) as gateway:
        assert gateway.port > 0
        line = f"guard serving tiny on 127.0.0.1:{gateway.port} (provider CPUExecutionProvider)"
        assert str(gateway) == line
    labels = {"model": "tiny", "session": "evidence", "provider": "CPUExecutionProvider"}
    assert REGISTRY.get_sample_value("guard_provider_info", labels) == 1


async def test_standard_health_follows_the_upstream(tiny_pack: Path) -> None:
    """grpc.health.v1 for the server, the service and each model; unknown names are NOT_FOUND."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack)
        check = health_pb2_grpc.HealthStub(here.caller.channel).Check

        async def state(name: str = "") -> int:
            return int((await check(health_pb2.HealthCheckRequest(service=name))).status)

        for name in ("", "tiny", "inference.GRPCInferenceService"):
            assert await state(name) == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await state("other")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        here.upstream.is_ready = False
        async with asyncio.timeout(5):
            while await state() != NOT_SERVING:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("reflection", [False, True])
async def test_reflection_only_where_it_is_switched_on(tiny_pack: Path, reflection: bool) -> None:
    """From the private pool: services are listed and their files can be fetched."""
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    async with Settings() as settings:
        here = await settings.start(tiny_pack, gateway={"reflection": reflection})
        stub = reflection_pb2_grpc.ServerReflectionStub(here.caller.channel)
        names = ("inference.GRPCInferenceService", "guard.v1.Guard", "grpc.health.v1.Health")
        questions = [reflection_pb2.ServerReflectionRequest(list_services="")] + [
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=name) for name in names
        ]
        if not reflection:
            assert await stub.ServerReflectionInfo().code() is grpc.StatusCode.UNIMPLEMENTED
            return
        listed, *files = [answer async for answer in stub.ServerReflectionInfo(iter(questions))]
        assert {service.name for service in listed.list_services_response.service} == set(names)
        assert all(answer.file_descriptor_response.file_descriptor_proto for answer in files)


async def test_an_embedded_onnx_file_is_an_upstream(tiny_pack: Path, tmp_path: Path) -> None:
    """`onnx:FILE` answers like a server would, with its own logits, and is guarded."""
    (tmp_path / "production.onnx").write_bytes(classifier_onnx())
    async with running(
        gateway_config(tiny_pack, upstream=f"onnx:{tmp_path / 'production.onnx'}")
    ) as gateway, Caller(gateway.address) as caller:  # fmt: skip
        images = clean_images([2, 0])
        answer = await caller.infer(images, outputs=("logits", "guard_decision"))
        logits = 20 * images.mean(axis=(2, 3))
        assert np.allclose(answer.outputs["logits"], logits, atol=1e-5)
        assert answer.outputs["guard_decision"].tolist() == [0, 0]
        about = await caller.call("ModelMetadata", name="tiny")
        logits = about.outputs[0]
        assert (logits.name, logits.datatype, list(logits.shape)) == ("logits", "FP32", [-1, 3])


async def test_a_calibration_made_with_the_upstream_decides(
    tiny_pack: Path, tmp_path: Path
) -> None:
    """The file of `guard calibrate --upstream` replaces the pack's own, if made for this pack."""
    names = ("stripes", "upstream", "detector")
    wide = np.linspace(0, 1, 999, dtype=np.float32)[:, None].repeat(3, axis=1)
    for digest, fits in ((Pack.load(tiny_pack).digest, True), ("sha256:0", False)):
        about = {"pack": digest}
        file = tmp_path / "calibration.npz"
        file.write_bytes(calibration.dump({"upstream": Calibration.fit(names, wide, about=about)}))
        async with FakeUpstream() as upstream:
            config = gateway_config(tiny_pack, upstream=upstream.address, calibration=str(file))
            if not fits:
                with pytest.raises(PackError, match="calibrat"):
                    async with running(config):
                        pass
                continue
            async with running(config) as gateway, Caller(gateway.address) as caller:
                answer = await caller.infer(suspicious_images([1]))
                assert answer.parameters["guard_decision"] == "ALLOW"


async def test_an_upstream_behind_tls(tiny_pack: Path, tmp_path: Path) -> None:
    """`grpcs://` with a private authority works, and without its certificate does not."""
    key, cert = certificate(tmp_path)
    pair = ((key.read_bytes(), cert.read_bytes()),)
    async with FakeUpstream(credentials=grpc.ssl_server_credentials(pair)) as upstream:
        address = f"grpcs://localhost:{upstream.port}"
        trusted = gateway_config(tiny_pack, upstream=address, tls=Tls(ca=str(cert)))
        async with running(trusted) as gateway, Caller(gateway.address) as caller:
            answer = await caller.infer(clean_images([1]))
            assert answer.outputs["label"].tolist() == [1]
        stranger = gateway_config(tiny_pack, upstream=address)
        async with running(stranger) as gateway, Caller(gateway.address) as caller:
            assert (await caller.refused(clean_images([1])))[0] == "UNAVAILABLE"


def certificate(folder: Path) -> tuple[Path, Path]:
    """A fresh self-signed certificate for localhost: key file, certificate file."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    return key, cert


async def test_two_gateways_cannot_share_a_port(tiny_pack: Path) -> None:
    """The second says which setting to change instead of stealing half the traffic."""
    async with running(gateway_config(tiny_pack)) as first:
        second = gateway_config(tiny_pack, gateway={"listen": first.address})
        with pytest.raises(ConfigError, match="cannot listen"):
            async with running(second):
                pass


async def test_what_is_wrong_is_said_before_anything_listens(
    tiny_pack: Path, tmp_path: Path
) -> None:
    """A missing pack, a short secret, a missing upstream file: one plain error each."""
    (tmp_path / "secret").write_bytes(b"short")
    for config, error in (
        (gateway_config(tmp_path / "nowhere"), PackError),
        (gateway_config(tiny_pack, gateway={"secret_file": str(tmp_path / "secret")}), ConfigError),
        (gateway_config(tiny_pack, gateway={"secret_file": str(tmp_path / "none")}), ConfigError),
        (gateway_config(tiny_pack, upstream=f"onnx:{tmp_path / 'none.onnx'}"), ConfigError),
        (gateway_config(tiny_pack, upstream="grpc://nowhere"), ConfigError),
    ):
        with pytest.raises(error):
            async with running(config):
                pass


async def test_a_message_over_the_limit_is_refused(tiny_pack: Path) -> None:
    """The default takes seven 224x224 float images, the configured limit holds."""
    async with Settings() as settings:
        large = clean_images([0] * 2000)  # 1.5 MB
        here = await settings.start(tiny_pack, gateway={"max_message_bytes": 1 << 20})
        assert (await here.caller.refused(large))[0] == "RESOURCE_EXHAUSTED"
        there = await settings.start(tiny_pack, max_images=10_000)
        heavy = clean_images([0] * 6000)  # 4.6 MB, more than gRPC's own default
        assert len((await there.caller.infer(heavy)).outputs["label"]) == 6000


async def test_draining_answers_what_runs_and_refuses_what_comes(tiny_pack: Path) -> None:
    """A request under way at shutdown gets its answer."""
    async with FakeUpstream(delay=0.3) as upstream:
        config = gateway_config(tiny_pack, upstream=upstream.address, gateway={"drain": 5.0})
        manager = running(config)
        gateway = await manager.__aenter__()
        async with Caller(gateway.address) as caller:
            asking = asyncio.create_task(caller.infer(clean_images([1])))
            await until(lambda: len(upstream.requests) == 1)
            closing = asyncio.create_task(manager.__aexit__(None, None, None))
            assert equal((await asking).outputs["label"], np.array([1]))
            await closing
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await caller.infer(clean_images([1]))
            assert failure_of(caught.value)[0] == "UNAVAILABLE"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_cleanly(tiny_pack: Path, number: signal.Signals) -> None:
    """`serve` prints one line when ready, and exits 0 after a signal."""
    program = (
        "import sys; from guard.config import single_pack_config; "
        "from guard.gateway.server import serve; "
        "serve(single_pack_config(sys.argv[1], listen='127.0.0.1:0', metrics='127.0.0.1:0'), "
        "announce=lambda line: print(line, flush=True))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tiny_pack)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("guard serving tiny on 127.0.0.1:")
        process.send_signal(number)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


async def test_a_hung_defence_is_neither_ready_nor_alive(tiny_pack: Path) -> None:
    """Health says so under the name "live", ServerLive too; both come back with the defence."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack, alone=True, evidence_timeout=0.1)
        check = health_pb2_grpc.HealthStub(here.caller.channel).Check
        mended, whole = threading.Event(), here.model.pipeline.evidence

        def hang(images: Any) -> Any:
            mended.wait(10)
            return whole(images)

        async def wanted(status: int) -> None:
            async with asyncio.timeout(10):
                for name in ("live", "tiny", ""):
                    request = health_pb2.HealthCheckRequest(service=name)
                    while (await check(request)).status != status:
                        await asyncio.sleep(0.05)

        await wanted(SERVING)
        here.model.pipeline.evidence = hang  # type: ignore[method-assign]
        assert (await here.caller.refused(clean_images([0])))[1] == "DEFENSE_FAILED"
        await wanted(NOT_SERVING)
        assert not (await here.caller.call("ServerLive")).live
        mended.set()
        await wanted(SERVING)
        assert (await here.caller.call("ServerLive")).live
