"""Real model servers behind the gateway, stock clients before it: nothing changes on the way.

MLServer and a real Triton run in an environment of their own: `deploy/ci/install peers`.
"""

import importlib.util
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from guard import data
from guard.config import Config, Output
from guard.data import signs
from guard.gateway.ask import asking
from guard.gateway.server import Running
from guard.pipeline import Pipeline
from guard.testing import (
    classifier_onnx,
    clean_images,
    gateway_config,
    make_pack,
    suspicious_images,
)
from tests.end_to_end.peers import servers

pytestmark = pytest.mark.skipif(
    servers.environment() is None,
    reason="no MLServer and Triton: run `deploy/ci/install peers`, or set GUARD_PEERS",
)

MODELS = Path(__file__).parents[2] / "models"
BLOCK = {"mode": "enforce", "on_flag": "block"}
BATCH = 32
DEADLINE = 20.0  # seconds a client waits
Floats = NDArray[np.float32]


def export_sentinel(pack: Path, file: Path) -> Path:
    """A standard-trained classifier of the pack's classes, as a server would have it."""
    import torch

    import guard

    member = next(
        member["name"]
        for member in Pipeline.load(pack).pack.manifest["members"]
        if member["role"] == "sentinel"
    )
    shape = Pipeline.load(pack).input_shape
    torch.onnx.export(
        guard.load_member(pack, member),
        (torch.rand(2, *shape),),
        str(file),
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("N")},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    return file


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny pack and those in `models`, by name."""
    found = {"tiny": make_pack(tmp_path_factory.mktemp("packs") / "tiny")}
    return found | {
        name: MODELS / name
        for name in ("signs", "gtsrb")
        if (MODELS / name / "manifest.json").is_file()
    }


@pytest.fixture(scope="module")
def files(packs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One ONNX classifier per pack."""
    folder = tmp_path_factory.mktemp("classifiers")
    (folder / "tiny.onnx").write_bytes(classifier_onnx())
    real = {
        name: export_sentinel(pack, folder / f"{name}.onnx")
        for name, pack in packs.items()
        if name != "tiny"
    }
    return {"tiny": folder / "tiny.onnx", **real}


@pytest.fixture(scope="module", params=servers.KINDS)
def peer(
    request: pytest.FixtureRequest, files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[servers.Peer]:
    """A real model server with every classifier."""
    with servers.Peer(request.param, files, tmp_path_factory.mktemp(request.param)) as peer:
        yield peer


@pytest.fixture
def tiny(peer: servers.Peer, packs: dict[str, Path]) -> Iterator[Running]:
    """A gateway that blocks, before the tiny classifier."""
    with servers.gateway(settings(packs["tiny"], peer, **BLOCK)) as gateway:
        yield gateway


def settings(pack: Path, peer: servers.Peer, **model: Any) -> Config:
    """What an operator writes for such a server: its address, and where the answer stands."""
    output = Output(tensor="logits", kind="logits")
    return gateway_config(pack, upstream=f"grpc://{peer.address}", output=output, **model)


def ask(address: str, model: str, images: Floats, *outputs: str) -> Any:
    """One request of a stock Triton client."""
    tensor = InferInput("images", images.shape, "FP32")
    tensor.set_data_from_numpy(images)
    wanted = [InferRequestedOutput(name) for name in outputs] or None
    with InferenceServerClient(address) as client:
        return client.infer(
            model, [tensor], outputs=wanted, request_id="r-1", client_timeout=DEADLINE
        )


def decisions(answer: Any) -> list[str]:
    """The verdicts that came with an answer."""
    return answer.get_response().parameters["guard_decision"].string_param.split(",")


def assert_same(answer: Any, direct: Any, rows: NDArray[np.bool_] | None = None) -> None:
    """The same outputs, bit for bit, in all rows or in some."""
    theirs, ours = direct.as_numpy("logits"), answer.as_numpy("logits")
    assert [x.name for x in answer.get_response().outputs] == ["logits"]
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    chosen = slice(None) if rows is None else rows
    assert ours[chosen].tobytes() == theirs[chosen].tobytes()


def assert_guards(peer: servers.Peer, pack: Path, images: Floats) -> None:
    """Allowed rows arrive as the server computed them, blocked ones not at all; few are blocked."""
    allowed = []
    with servers.gateway(settings(pack, peer, **BLOCK)) as gateway:
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            answer = ask(gateway.address, pack.name, batch)
            rows = np.array(decisions(answer)) == "ALLOW"
            assert_same(answer, ask(peer.address, pack.name, batch), rows)
            assert np.isnan(answer.as_numpy("logits")[~rows]).all()
            allowed.append(rows)
    assert np.concatenate(allowed).mean() > 0.9


def test_a_stock_triton_client_gets_the_servers_own_bytes(
    tiny: Running, peer: servers.Peer
) -> None:
    """An allowed answer is bit-identical to asking the server, and carries a verdict."""
    images = clean_images([0, 1, 2])
    answer = ask(tiny.address, "tiny", images)
    direct = ask(peer.address, "tiny", images)
    assert_same(answer, direct)
    assert decisions(answer) == ["ALLOW"] * 3
    ours, theirs = answer.get_response(), direct.get_response()
    assert (ours.id, ours.model_name, ours.model_version) == (
        theirs.id,
        "tiny",
        theirs.model_version,
    )


def test_a_stock_kserve_client_gets_the_servers_own_bytes(
    tiny: Running, peer: servers.Peer, tmp_path: Path
) -> None:
    """KServe's gRPC client reads the same outputs through the gateway and from the server."""
    if importlib.util.find_spec("kserve") is None:
        pytest.skip("kserve is not installed: it is in the extra `dev`")
    np.save(tmp_path / "images.npy", clean_images([2, 0]))
    answers = []
    for address in (tiny.address, peer.address):
        file = tmp_path / f"{len(answers)}.npz"
        client = [sys.executable, str(servers.HERE / "kserve_client.py")]
        command = [*client, address, "tiny", str(tmp_path / "images.npy"), str(file)]
        subprocess.run(command, check=True, timeout=60)
        with np.load(file) as stored:
            answers.append({name: stored[name] for name in stored.files})
    assert answers[0]["logits"].tobytes() == answers[1]["logits"].tobytes()
    assert answers[0]["logits"].argmax(1).tolist() == [2, 0]
    assert "guard_decision" in str(answers[0]["__parameters__"])


def test_blocked_rows_do_not_reach_the_client(tiny: Running, peer: servers.Peer) -> None:
    """In a mixed batch the suspicious row is masked, the others stay the server's own."""
    images = np.concatenate([clean_images([0]), suspicious_images([1]), clean_images([2])])
    answer = ask(tiny.address, "tiny", images)
    rows = np.array([True, False, True])
    assert decisions(answer) == ["ALLOW", "BLOCK", "ALLOW"]
    assert_same(answer, ask(peer.address, "tiny", images), rows)
    assert np.isnan(answer.as_numpy("logits")[1]).all()


def test_a_blocked_request_is_an_error_that_a_stock_client_understands(tiny: Running) -> None:
    """When every image is blocked, the call fails with FAILED_PRECONDITION."""
    with pytest.raises(InferenceServerException, match="FAILED_PRECONDITION"):
        ask(tiny.address, "tiny", suspicious_images([1]))


def test_a_stock_client_may_ask_for_the_verdict(tiny: Running, peer: servers.Peer) -> None:
    """Guard's outputs come beside the server's when they are asked for by name."""
    images = clean_images([1, 1])
    answer = ask(tiny.address, "tiny", images, "guard_p_value", "logits", "guard_decision")
    direct = ask(peer.address, "tiny", images, "logits")
    assert answer.as_numpy("logits").tobytes() == direct.as_numpy("logits").tobytes()
    assert answer.as_numpy("guard_decision").tolist() == [0, 0]
    assert answer.as_numpy("guard_p_value").shape == (2,)


def test_the_servers_address_is_all_the_configuration_it_needs(
    peer: servers.Peer, packs: dict[str, Path]
) -> None:
    """Name, pack and address are enough: where the answer stands is found out."""
    images = clean_images([2, 1])
    config = gateway_config(packs["tiny"], upstream=f"grpc://{peer.address}")
    with servers.gateway(config) as door:
        answer = ask(door.address, "tiny", images)
    assert_same(answer, ask(peer.address, "tiny", images))
    assert decisions(answer) == ["ALLOW"] * 2
    pictures = (images.transpose(0, 2, 3, 1) * 255).astype(np.uint8)
    with asking(config.gateway, config.models[0], Pipeline.load(packs["tiny"])) as calibrating:
        assert calibrating(pictures).argmax(1).tolist() == [2, 1]


def test_health_is_the_servers(tiny: Running) -> None:
    """A stock client's liveness, readiness and metadata calls are answered."""
    with InferenceServerClient(tiny.address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("tiny")
        assert client.get_model_metadata("tiny").name == "tiny"


def test_a_killed_server_is_unavailable_until_it_returns(
    peer: servers.Peer, packs: dict[str, Path]
) -> None:
    """kill -9 under load: UNAVAILABLE within the deadline, then answers again by itself."""
    seen: list[tuple[float, str]] = []
    stop = threading.Event()

    def load(address: str) -> None:
        while not stop.is_set():
            start = time.monotonic()
            try:
                ask(address, "tiny", clean_images([0]))
                status = "OK"
            except InferenceServerException as error:
                status = str(error.status())
            seen.append((time.monotonic() - start, status))
            time.sleep(0.01)

    with servers.gateway(settings(packs["tiny"], peer)) as gateway:
        threads = [threading.Thread(target=load, args=(gateway.address,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        peer.kill()
        time.sleep(1)
        down = len(seen)
        peer.start()
        deadline = time.monotonic() + 20
        while seen[-1][1] != "OK" and time.monotonic() < deadline:
            time.sleep(0.05)
        recovered = seen[-1][1]
        stop.set()
        for thread in threads:
            thread.join()
    assert recovered == "OK"
    assert {status for _, status in seen[:down]} == {"OK", "StatusCode.UNAVAILABLE"}
    assert seen[down - 1][1] == "StatusCode.UNAVAILABLE"
    assert max(seconds for seconds, _ in seen) < DEADLINE


def test_signs_arrive_as_the_server_answered(peer: servers.Peer, packs: dict[str, Path]) -> None:
    """With the shipped pack, procedural signs pass, and what passes is bit-identical."""
    if "signs" not in packs:
        pytest.skip("models/signs is not there")
    assert_guards(peer, packs["signs"], signs.make(256, seed=2026).pixels())


def test_real_traffic_signs_arrive_as_the_server_answered(
    peer: servers.Peer, packs: dict[str, Path]
) -> None:
    """The same with photographs: German traffic signs, of tracks that nothing was trained on."""
    folder = Path(os.environ.get("GUARD_DATA", "nowhere")) / "gtsrb"
    if "gtsrb" not in packs or not folder.is_dir():
        pytest.skip("models/gtsrb or GUARD_DATA/gtsrb is not there")
    pictures = data.read(folder, "test")
    some = np.random.default_rng(0).choice(len(pictures), 512, replace=False)
    assert_guards(peer, packs["gtsrb"], pictures.subset(some).pixels())
