"""The whole gateway in its own process: stock clients, malformed requests, a killed upstream."""

import contextlib
import importlib.util
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

from guard.client import CallError, Client
from guard.gateway import protocol
from guard.testing import answer_colour, clean_images, make_pack, suspicious_images
from tests.end_to_end.processes import (
    GATEWAY,
    UPSTREAM,
    Process,
    free_port,
    started,
    write_config,
)
from tests.gateway.malformed import CASES, Target, encoded, picture, valid

SHAPE = (3, 32, 32)
MEGABYTE = 1 << 20
FORMS = ("PNG", "JPEG", "WEBP")


# ── stock clients ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def pair(tiny_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Addresses of a gateway and of the upstream behind it."""
    port = free_port()
    folder = tmp_path_factory.mktemp("pair")
    model = {"name": "tiny", "upstream": f"grpc://127.0.0.1:{port}"}
    config = write_config(folder / "guard.toml", tiny_pack, model)
    with started(UPSTREAM, str(port), "0"), started(GATEWAY, str(config)) as gateway:
        yield gateway.address, f"127.0.0.1:{port}"


def ask_triton(address: str, images: Any, *outputs: str, **options: Any) -> Any:
    """Ask with a stock tritonclient."""
    with triton.InferenceServerClient(address) as client:
        tensor = triton.InferInput("images", images.shape, "FP32")
        tensor.set_data_from_numpy(images)
        wanted = [triton.InferRequestedOutput(name) for name in outputs]
        return client.infer("tiny", [tensor], outputs=wanted or None, **options)


def test_a_stock_tritonclient_gets_what_the_upstream_says_bit_for_bit(
    pair: tuple[str, str],
) -> None:
    """Through the gateway and directly: the same outputs, id, version and parameters."""
    gateway, upstream = pair
    images = np.random.default_rng(0).random((5, 3, 8, 8), np.float32)
    options = {"request_id": "r-1", "model_version": "7", "parameters": {"custom": "kept"}}
    guarded, direct = (ask_triton(address, images, **options) for address in (gateway, upstream))
    for name in ("probabilities", "label"):
        assert guarded.as_numpy(name).tobytes() == direct.as_numpy(name).tobytes()
    theirs, ours = direct.get_response(), guarded.get_response()
    assert (ours.id, ours.model_version, ours.model_name) == ("r-1", "7", "tiny")
    assert ours.outputs == theirs.outputs
    assert ours.raw_output_contents == theirs.raw_output_contents
    assert ours.parameters["upstream_parameter"] == theirs.parameters["upstream_parameter"]
    assert ours.parameters["guard_decision"].string_param.count(",") == 4


def test_a_stock_tritonclient_sees_a_server(pair: tuple[str, str]) -> None:
    """Health, metadata and requested outputs work unchanged; guard's outputs come by name."""
    gateway, _ = pair
    with triton.InferenceServerClient(gateway) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("tiny")
        assert client.get_server_metadata().name == "guard"
        assert client.get_model_metadata("tiny").platform == "fake"
        with pytest.raises(triton.InferenceServerException, match="UNIMPLEMENTED"):
            client.load_model("tiny")
        with pytest.raises(triton.InferenceServerException, match="UNIMPLEMENTED"):
            client.register_system_shared_memory("region", "/region", 4)
    images = np.concatenate([clean_images([0]), suspicious_images([1])])
    answer = ask_triton(gateway, images, "label", "guard_decision", "guard_p_value")
    assert answer.as_numpy("label").tolist() == [0, 1]
    assert answer.as_numpy("guard_decision").tolist() == [0, 1]
    assert answer.as_numpy("probabilities") is None


def test_a_stock_tritonclient_stream_is_refused(pair: tuple[str, str]) -> None:
    """A stream would carry images past the defence."""
    failures: list[Any] = []
    with triton.InferenceServerClient(pair[0]) as client:
        client.start_stream(callback=lambda result, error: failures.append(error or result))
        tensor = triton.InferInput("images", (1, 3, 8, 8), "FP32")
        tensor.set_data_from_numpy(clean_images([0]))
        with contextlib.suppress(triton.InferenceServerException):  # refused before it was sent
            client.async_stream_infer("tiny", [tensor])
        deadline = time.monotonic() + 5
        while not failures and time.monotonic() < deadline:
            time.sleep(0.01)
        client.stop_stream()
    assert isinstance(failures[0], triton.InferenceServerException)


@pytest.mark.skipif(importlib.util.find_spec("kserve") is None, reason="kserve is not installed")
def test_a_stock_kserve_client_works_too(pair: tuple[str, str], tmp_path: Path) -> None:
    """The KServe SDK, in a process of its own because it clashes with tritonclient."""
    program = Path(__file__).parent / "peers" / "kserve_client.py"
    np.save(tmp_path / "images.npy", clean_images([2, 1]))
    files = [str(tmp_path / "images.npy"), str(tmp_path / "answer.npz")]
    subprocess.run([sys.executable, str(program), pair[0], "tiny", *files], check=True)
    with np.load(tmp_path / "answer.npz") as answer:
        assert answer["label"].tolist() == [2, 1]
        assert "guard_decision" in str(answer["__parameters__"])


# ── malformed requests ───────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A gateway of one model of pixels and one of pictures."""
    folder = tmp_path_factory.mktemp("server")
    pack = make_pack(folder / "packs" / "colours", shape=SHAPE)
    models = (
        {"name": "pixels", "answer": "ensemble"},
        {"name": "encoded", "answer": "ensemble", "input": {"encoded": True}},
    )
    with started(GATEWAY, str(write_config(folder / "guard.toml", pack, *models))) as gateway:
        yield gateway


def send(channel: grpc.Channel, data: bytes) -> tuple[str, str]:
    """The status and message that these bytes get."""
    method = protocol.INFERENCE_METHODS["ModelInfer"]
    try:
        channel.unary_unary(method.path)(data, timeout=20)
    except grpc.RpcError as error:
        return error.code().name, error.details() or ""  # type: ignore[attr-defined]
    return "OK", ""


def check_alive(channel: grpc.Channel) -> None:
    """Good requests of both kinds are answered."""
    pixels, pictures = Target("pixels", shape=SHAPE), Target("encoded", shape=SHAPE)
    assert send(channel, valid(pixels, 2).SerializeToString()) == ("OK", "")
    assert send(channel, encoded(pictures, picture(pictures)).SerializeToString()) == ("OK", "")


def test_every_malformed_request_gets_its_status_and_the_server_keeps_answering(
    server: Process,
) -> None:
    """The whole table over the wire, again and again; memory returns to within 20 MB."""
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.address, options) as channel:
        for _ in range(5):
            check_alive(channel)
        before = server.resident_bytes
        wrong = [case.name for case in CASES if not _right(channel, case)]
        assert wrong == []
        assert all(_right(channel, case) for case in CASES)
        check_alive(channel)
        time.sleep(0.5)
        grown = server.resident_bytes - before
        assert grown < 20 * MEGABYTE, f"{grown / MEGABYTE:.1f} MB more than before"


def _right(channel: grpc.Channel, case: Any) -> bool:
    model = "encoded" if case.model == "encoded" else "pixels"
    status, message = send(channel, case.build(Target(model, shape=SHAPE)))
    return status == case.status and case.problem in message and len(message) <= 600


def test_random_damage_is_the_callers_mistake_and_never_an_internal_error(
    server: Process,
) -> None:
    """Good requests of every form with bytes changed, lost, added: five hundred of them."""
    dice = random.Random(0)
    pixels, pictures = Target("pixels", shape=SHAPE), Target("encoded", shape=SHAPE)
    good = [
        valid(pixels, 2).SerializeToString(),
        valid(pixels, 1, typed=True).SerializeToString(),
        *(encoded(pictures, picture(pictures, form)).SerializeToString() for form in FORMS),
    ]
    with grpc.insecure_channel(server.address) as channel:
        statuses = {send(channel, _damaged(dice, dice.choice(good)))[0] for _ in range(500)}
        check_alive(channel)
    assert statuses <= {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED"}


def _damaged(dice: random.Random, data: bytes) -> bytes:
    """Up to three small changes, mostly near the beginning, where the structure is."""
    damaged = bytearray(data)
    for _ in range(dice.randint(1, 3)):
        place = dice.randrange(min(len(damaged), dice.choice([60, len(damaged)])))
        few = bytes(dice.randrange(256) for _ in range(dice.randint(1, 8)))
        change = dice.randrange(3)
        damaged[place : place + (len(few) if change < 2 else 0)] = few if change else b""
    return bytes(damaged) or b"x"


def test_a_message_over_the_limit_is_refused_and_costs_nothing(server: Process) -> None:
    """65 MiB: RESOURCE_EXHAUSTED, not a larger process."""
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.address, options) as channel:
        check_alive(channel)
        before = server.resident_bytes
        assert send(channel, b"\0" * (65 * MEGABYTE))[0] == "RESOURCE_EXHAUSTED"
        check_alive(channel)
        assert server.resident_bytes - before < 20 * MEGABYTE


# ── a killed upstream ────────────────────────────────────────────────────────────────────────────


class Load:
    """Callers in threads who ask until told to stop; every outcome is noted with its time."""

    def __init__(self, address: str, callers: int) -> None:
        self._stop = threading.Event()
        self.outcomes: list[tuple[float, str, float]] = []  # when, status, seconds it took
        self._threads = [
            threading.Thread(target=self._ask, args=(address,)) for _ in range(callers)
        ]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, address: str) -> None:
        images = clean_images([1])
        with Client(address, timeout=2.0) as client:
            while not self._stop.is_set():
                start = time.monotonic()
                try:
                    answer = client.infer("tiny", images)
                    right = answer.outputs["label"].tolist() == [1]
                    status = "OK" if right else "WRONG"
                except CallError as error:
                    status = error.code
                    time.sleep(0.01)
                self.outcomes.append((start, status, time.monotonic() - start))

    def since(self, moment: float) -> list[str]:
        """Statuses of the requests begun after this moment."""
        return [status for start, status, _ in list(self.outcomes) if start > moment]

    def wait(self, moment: float, status: str, count: int, seconds: float) -> None:
        """Returns when so many requests begun after this moment had this status."""
        deadline = time.monotonic() + seconds
        while self.since(moment).count(status) < count:
            assert time.monotonic() < deadline, self.since(moment)[-20:]
            time.sleep(0.02)


def test_kill_9_of_the_upstream_under_load(tiny_pack: Path, tmp_path: Path) -> None:
    """UNAVAILABLE within the caller's deadline, never a wrong answer, recovery without help."""
    port = free_port()
    model = {"name": "tiny", "upstream": f"grpc://127.0.0.1:{port}"}
    config = write_config(tmp_path / "guard.toml", tiny_pack, model)
    upstream = Process(UPSTREAM, str(port), "0.01")
    try:
        with started(GATEWAY, str(config)) as gateway, Load(gateway.address, 4) as load:
            load.wait(0.0, "OK", 20, 10)
            killed = time.monotonic()
            upstream.kill()
            load.wait(killed, "UNAVAILABLE", 20, 10)
            with Client(gateway.address) as client:
                assert client.live()
                deadline = time.monotonic() + 3  # readiness is believed for half a second
                while client.ready():
                    assert time.monotonic() < deadline
            upstream = Process(UPSTREAM, str(port), "0.01")
            back = time.monotonic()
            load.wait(back, "OK", 20, 10)
            assert gateway.running
        assert {status for _, status, _ in load.outcomes} == {"OK", "UNAVAILABLE"}
        assert max(seconds for _, _, seconds in load.outcomes) < 2.0
    finally:
        upstream.kill()


def test_the_fake_and_the_ensemble_agree_on_what_is_tested() -> None:
    """The double answers colours, so that a wrong row would be seen."""
    assert answer_colour({"images": clean_images([2, 0])})["label"].tolist() == [2, 0]
