"""The client, over loopback, against a small server of the same protocol."""

import time
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from guard.client import Answer, CallError, Client
from guard.errors import InputError, OverloadedError
from guard.gateway import codec, protocol, tensors
from guard.gateway.protocol import Message
from guard.gateway.status import failure
from guard.verdict import Decision


class Behaviour:
    """Answers with its inputs as outputs, and keeps what it was told."""

    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}

    def infer(self, data: bytes, context: grpc.ServicerContext) -> Message:
        """Echo; `refused` fails as a gateway does, garbage as `codec.parse` says."""
        try:
            request = codec.parse(protocol.ModelInferRequest, data)
            codec.check_request(request)
        except InputError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        if request.model_name == "refused":
            _refuse(context)
        if request.model_name == "busy" and not self.seen.setdefault("busy", False):
            self.seen["busy"] = True
            failed = failure(OverloadedError("busy", retry_after=0.2))
            context.set_trailing_metadata(failed.trailing)
            context.abort(failed.code, failed.message)
        self.seen = {
            "metadata": dict(context.invocation_metadata()),
            "deadline": context.time_remaining(),
            "parameters": codec.get_parameters(request),
            "raw": codec.is_raw(request),
            "outputs": [output.name for output in request.outputs],
        }
        names = [tensor.name for tensor in request.inputs]
        outputs = {name: codec.read_input(request, name) for name in names}
        return codec.build_response(request, outputs, parameters={"guard_decision": "FLAG,ALLOW"})

    def inspect(self, request: Message, _: grpc.ServicerContext) -> Message:
        """One verdict per image."""
        images = codec.unpack_tensor(request.images, "images")
        response = protocol.InspectResponse(model_name=request.model_name)
        for _ in images:
            verdict = response.verdicts.add(decision=2, p_value=0.25, label=3, reason="noise")
            verdict.scores.add(name="noise", value=1.5, p_value=0.5)
        return response


def _refuse(context: grpc.ServicerContext) -> None:
    info = protocol.ErrorInfo(reason="ADVERSARIAL_INPUT", domain="guard", metadata={"id": "5f"})
    details = protocol.rich_status(9, "refused", [info])
    context.set_trailing_metadata(((protocol.STATUS_DETAILS, details),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "refused")


def _constant(method: protocol.Method, **values: Any) -> Any:
    return lambda _request, _context: method.response(**values)


@pytest.fixture
def behaviour() -> Behaviour:
    """What the server does."""
    return Behaviour()


@pytest.fixture
def address(behaviour: Behaviour) -> Iterator[str]:
    """A loopback server with both services."""
    inference = protocol.INFERENCE_METHODS
    guard = {name: protocol.GUARD_METHODS[name] for name in ("Status", "Inspect")}
    behaviours = {
        "ModelInfer": behaviour.infer,
        "ServerLive": _constant(inference["ServerLive"], live=True),
        "ServerReady": _constant(inference["ServerReady"], ready=False),
        "ModelReady": _constant(inference["ModelReady"], ready=True),
        "ServerMetadata": _constant(inference["ServerMetadata"], name="echo"),
        "ModelMetadata": _constant(inference["ModelMetadata"], platform="test"),
        "Inspect": behaviour.inspect,
        "Status": _constant(guard["Status"], version="1", models=[{"name": "signs"}]),
    }
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers(
        (
            protocol.service_handler(inference, behaviours, raw_requests={"ModelInfer"}),
            protocol.service_handler(guard, behaviours),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    """A connection to it."""
    with Client(address, timeout=5, metadata=[("who", "test")]) as connection:
        yield connection


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("name", sorted(set(tensors.DATATYPES) - {"BF16", "BYTES"}))
def test_every_datatype(client: Client, name: str, raw: bool) -> None:
    """Arrays of every type come back equal through either form of contents."""
    array = np.arange(6).reshape(2, 3).astype(tensors.DATATYPES[name].array)
    if not raw and not tensors.DATATYPES[name].field:
        with pytest.raises(InputError, match="typed contents"):
            client.infer("echo", {"x": array}, raw=raw)
        return
    back = client.infer("echo", {"x": array}, raw=raw).outputs["x"]
    assert back.dtype == array.dtype
    assert np.array_equal(back, array)


def test_pictures(client: Client, behaviour: Behaviour) -> None:
    """A list of encoded pictures is one BYTES tensor under the default name."""
    answer = client.infer("echo", [b"one", b"\0two"])
    assert answer.outputs["images"].tolist() == [b"one", b"\0two"]


def test_what_travels(client: Client, behaviour: Behaviour) -> None:
    """Names, parameters, id, metadata and deadline reach the server."""
    answer = client.infer(
        "echo",
        np.zeros((2, 1), np.float32),
        outputs=["label", "guard_scores"],
        parameters={"priority": 2, "hint": "x"},
        request_id="42",
        timeout=3,
        metadata=[("more", "yes")],
        raw=False,
    )
    assert behaviour.seen["outputs"] == ["label", "guard_scores"]
    assert behaviour.seen["parameters"] == {"priority": 2, "hint": "x"}
    assert not behaviour.seen["raw"]
    assert behaviour.seen["metadata"].items() >= {"who": "test", "more": "yes"}.items()
    assert 0 < behaviour.seen["deadline"] < 4  # the wire rounds it up
    assert (answer.model, answer.request_id) == ("echo", "42")


def test_verdict_from_parameters(client: Client) -> None:
    """Without outputs of guard's, the decisions are read from the response parameter."""
    answer = client.infer("echo", np.zeros((2, 1), np.float32))
    assert answer.decisions == (Decision.FLAG, Decision.ALLOW)
    assert answer.p_values is None
    assert not answer.substituted
    with pytest.raises(ValueError, match="too many"):
        _ = answer.decision


def test_verdict_from_outputs() -> None:
    """The outputs, where there are some, are what the properties show."""
    outputs = {
        "guard_decision": np.array([2], np.int32),
        "guard_p_value": np.array([0.5], np.float32),
        "guard_scores": np.ones((1, 3), np.float32),
    }
    answer = Answer("m", outputs, {"guard_substituted": True})
    assert answer.decision is Decision.BLOCK
    assert answer.p_values is outputs["guard_p_value"]
    assert answer.scores is outputs["guard_scores"]
    assert answer.substituted
    assert Answer("m", {}).decisions == ()


def test_refusals(client: Client) -> None:
    """A failed call is a CallError with the status name and what ErrorInfo says."""
    with pytest.raises(CallError, match="FAILED_PRECONDITION: refused") as caught:
        client.infer("refused", np.zeros(1))
    assert (caught.value.code, caught.value.message) == ("FAILED_PRECONDITION", "refused")
    assert (caught.value.reason, caught.value.info) == ("ADVERSARIAL_INPUT", {"id": "5f"})
    with pytest.raises(CallError) as plain:
        client.infer("echo", {})
    assert (plain.value.code, plain.value.reason) == ("INVALID_ARGUMENT", "")
    assert plain.value.message == "the request has no inputs"


def test_nobody_there() -> None:
    """A server that does not exist is UNAVAILABLE within the timeout, not a hang."""
    with Client("127.0.0.1:1", timeout=5) as client, pytest.raises(CallError) as caught:
        client.live()
    assert caught.value.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")


def test_health_and_metadata(client: Client) -> None:
    """The short calls of both services."""
    assert client.live()
    assert not client.ready()
    assert client.ready("signs")
    assert client.server_metadata().name == "echo"
    assert client.model_metadata("signs").platform == "test"
    assert client.status().models[0].name == "signs"


def test_inspect(client: Client) -> None:
    """Verdicts come back as guard's own, with the scores by name."""
    verdicts = client.inspect("signs", np.zeros((2, 3), np.float32), np.zeros(2, np.int64))
    assert len(verdicts) == 2
    assert verdicts[0].decision is Decision.BLOCK
    assert verdicts[0].scores == {"noise": 1.5}
    assert verdicts[0].p_values == {"noise": 0.5}
    assert (verdicts[0].label, verdicts[0].reason) == (3, "noise")


def test_tritonclients_stub(address: str) -> None:
    """A stub that others generated talks to our handlers, in this same process."""
    with grpc.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        request = service_pb2.ModelInferRequest(model_name="echo")
        request.inputs.add(name="x", datatype="FP32", shape=[1])
        request.raw_input_contents.append(b"\0\0\x80?")
        response = stub.ModelInfer(request, timeout=5)
    assert response.outputs[0].name == "x"
    assert response.raw_output_contents[0] == b"\0\0\x80?"


def test_garbage_on_the_wire(address: str) -> None:
    """Bytes that are no message reach the behaviour, which can say INVALID_ARGUMENT."""
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(protocol.INFERENCE_METHODS["ModelInfer"].path)
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\xff" * 9, timeout=5)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "not a ModelInferRequest" in caught.value.details()


def test_a_patient_client_comes_back_when_it_is_told(address: str) -> None:
    """A refusal for now says when; who may wait that long is answered, others are told."""
    pixels = np.zeros((1, 3, 8, 8), np.float32)
    with Client(address, patience=0.1) as client, pytest.raises(CallError) as caught:
        client.infer("busy", pixels)
    assert caught.value.retry_after == pytest.approx(0.2)


def test_a_patient_client_is_answered_in_the_end(address: str) -> None:
    """The second try comes after the time that the refusal named."""
    start = time.monotonic()
    with Client(address, patience=5.0) as client:
        assert client.infer("busy", np.zeros((1, 3, 8, 8), np.float32)).outputs
    assert time.monotonic() - start >= 0.2
