"""The private messages: as the .proto files say, as others spell them, beside others' copies."""

import importlib.util
import subprocess
import sys
from importlib import resources
from pathlib import Path
from types import ModuleType

import pytest
from google.protobuf import descriptor_pb2
from tritonclient.grpc import service_pb2

from guard.gateway import protocol

ROOT = Path(__file__).resolve().parents[2]
REQUIRED = {
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "ModelInfer",
}


def _build_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_protos", ROOT / "protos" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_shipped_descriptors_are_current() -> None:
    """Compiling the .proto files again gives what the package ships."""
    pytest.importorskip("grpc_tools")
    shipped = resources.files("guard.gateway").joinpath("descriptors.binpb").read_bytes()
    parsed = descriptor_pb2.FileDescriptorSet.FromString
    assert parsed(_build_script().compiled()) == parsed(shipped)


def test_methods() -> None:
    """The six required calls and guard's own, under the paths that every client calls."""
    assert set(protocol.INFERENCE_METHODS) == REQUIRED
    infer = protocol.INFERENCE_METHODS["ModelInfer"]
    assert infer.path == "/inference.GRPCInferenceService/ModelInfer"
    assert infer.request is protocol.ModelInferRequest
    assert infer.response is protocol.ModelInferResponse
    assert protocol.GUARD_METHODS["Inspect"].path == "/guard.v1.Guard/Inspect"


def test_every_method_of_triton_has_a_place() -> None:
    """Each call of Triton's wider service is served, forwarded, streamed or refused."""
    service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    theirs = {method.name for method in service.methods}
    placed = (*protocol.FORWARDED_METHODS, *protocol.STREAM_METHODS, *protocol.REFUSED_METHODS)
    assert REQUIRED | set(placed) == theirs
    assert len(set(placed)) == len(placed)


def test_fields_are_those_of_triton() -> None:
    """Every field of every inference message has tritonclient's number, type and label."""
    file = protocol.POOL.FindFileByName("open_inference.proto")
    theirs = descriptor_pb2.FileDescriptorProto()
    service_pb2.DESCRIPTOR.CopyToProto(theirs)
    ours = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(ours)
    known = {message.name: _fields(message) for message in theirs.message_type}
    for message in ours.message_type:
        assert _fields(message).items() <= known[message.name].items()


def _fields(message: descriptor_pb2.DescriptorProto) -> dict[str, tuple[int, int, int, str]]:
    fields = {f.name: (f.number, f.type, f.label, f.type_name) for f in message.field}
    for nested in message.nested_type:
        for name, value in _fields(nested).items():
            fields[f"{nested.name}.{name}"] = value
    return fields


@pytest.mark.parametrize("other", ["tritonclient.grpc", "kserve"])
@pytest.mark.parametrize("first", [True, False])
def test_beside_others_in_one_process(other: str, first: bool) -> None:
    """Loads before and after a library that defines package `inference` itself."""
    if importlib.util.find_spec(other.split(".")[0]) is None:
        pytest.skip(f"{other} is not installed")
    names = [other, "guard.gateway.protocol"] if first else ["guard.gateway.protocol", other]
    code = f"import {names[0]}, {names[1]}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=120)


def test_messages_are_not_tritons() -> None:
    """The classes are others than tritonclient's: nothing was put in the shared pool."""
    assert protocol.ModelInferRequest is not service_pb2.ModelInferRequest
    assert protocol.ModelInferRequest.DESCRIPTOR.file.pool is protocol.POOL


def test_rich_status_is_google_rpc_status() -> None:
    """Google's own classes read the details that we write, and we read our own."""
    error_details_pb2 = pytest.importorskip("google.rpc.error_details_pb2")
    status_pb2 = pytest.importorskip("google.rpc.status_pb2")
    info = protocol.ErrorInfo(reason="ADVERSARIAL_INPUT", domain="guard", metadata={"id": "7"})
    retry = protocol.RetryInfo()
    retry.retry_delay.seconds = 2
    data = protocol.rich_status(9, "refused", [retry, info])
    status = status_pb2.Status.FromString(data)
    theirs = error_details_pb2.ErrorInfo()
    assert (status.code, status.message) == (9, "refused")
    assert status.details[1].Unpack(theirs)
    assert (theirs.reason, dict(theirs.metadata)) == ("ADVERSARIAL_INPUT", {"id": "7"})
    assert protocol.error_info(data).metadata["id"] == "7"
    assert protocol.error_info(protocol.rich_status(9, "refused", [retry])) is None


def test_unknown_fields_survive() -> None:
    """A field that only a newer protocol knows is still there after parsing and serialising."""
    data = protocol.ModelInferRequest(model_name="m").SerializeToString() + b"\x98\x06\x01"
    assert protocol.ModelInferRequest.FromString(data).SerializeToString() == data
