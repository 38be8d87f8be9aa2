"""Requests and guard's own answers: interoperable, checked, and forwarded as they came."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import InferInput, InferResult, service_pb2
from tritonclient.utils import np_to_triton_dtype

from guard.errors import InputError
from guard.gateway import codec, tensors
from guard.gateway.protocol import Message, ModelInferRequest, ModelInferResponse
from guard.verdict import Verdicts
from tests.gateway.malformed import Target, valid
from tests.gateway.test_tensors import typed_arrays

TARGET = Target()


def _verdicts(decisions: list[int], substituted: list[bool] | None = None) -> Verdicts:
    N = len(decisions)
    return Verdicts(
        decisions=np.array(decisions, np.int32),
        p_values=np.linspace(0, 1, N, dtype=np.float32),
        labels=np.zeros(N, np.int64),
        probabilities=np.full((N, 4), 0.25, np.float32),
        scores=np.ones((N, 2), np.float32),
        score_p_values=np.ones((N, 2), np.float32),
        score_names=("noise", "detector"),
        substituted=np.array(substituted or [False] * N),
    )


def _request(*outputs: str, typed: bool = False) -> Message:
    request = valid(TARGET, typed=typed)
    for name in outputs:
        request.outputs.add(name=name)
    return request


@settings(deadline=None)
@given(typed_arrays(), st.text(max_size=9), st.booleans())
def test_tritonclient_requests(case: tuple[str, Any], name: str, typed: bool) -> None:
    """What tritonclient's messages serialise we read; what we write back is the same bytes."""
    datatype, array = case
    theirs = service_pb2.ModelInferRequest(model_name="m", id=name)
    tensor = theirs.inputs.add(name="x", datatype=datatype, shape=array.shape)
    tensor.parameters["custom"].string_param = name
    theirs.parameters["sequence_id"].uint64_param = 2**63
    theirs.outputs.add(name="y").parameters["classification"].int64_param = 3
    if typed and tensors.DATATYPES[datatype].field:
        tensors.to_typed(tensor.contents, array, datatype, "x")
    else:
        theirs.raw_input_contents.append(tensors.to_raw(array, datatype))
    data = theirs.SerializeToString(deterministic=True)
    ours = codec.parse(ModelInferRequest, data)
    codec.check_request(ours)
    read = codec.read_input(ours, "x")
    assert read.shape == array.shape
    np.testing.assert_array_equal(read, array)
    assert ours.SerializeToString(deterministic=True) == data


def test_tritonclient_encodes_as_we_do() -> None:
    """tritonclient's own encoding of numpy arrays, BYTES too, is the one we read."""
    kinds = ("u1", "<i8", "<f2", "<f4", "?")
    cases = [np.arange(6).reshape(2, 3).astype(kind) for kind in kinds]
    for array in [*cases, np.array([b"a", b"", b"\0\xff"], dtype=object)]:
        tensor = InferInput("x", list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        read = tensors.from_raw(tensor._get_content(), tensor.datatype(), tensor.shape(), "x")
        assert read.tolist() == array.tolist()


def test_tritonclient_reads_our_answers() -> None:
    """tritonclient's result object, which knows raw contents, reads an answer to its request."""
    outputs = _answer_outputs()
    response = codec.build_response(_request(), outputs, parameters={"guard_decision": "ALLOW"})
    theirs = service_pb2.ModelInferResponse.FromString(response.SerializeToString())
    result = InferResult(theirs)
    for name, array in outputs.items():
        assert result.as_numpy(name).tolist() == array.tolist()
    assert (theirs.model_name, theirs.id) == (TARGET.model, "7")
    assert theirs.parameters["guard_decision"].string_param == "ALLOW"


def test_typed_requests_get_typed_answers() -> None:
    """The answer has the form that the request came in, in the fields that the protocol names."""
    response = codec.build_response(_request(typed=True), _answer_outputs())
    theirs = service_pb2.ModelInferResponse.FromString(response.SerializeToString())
    assert not theirs.raw_output_contents
    assert list(theirs.outputs[0].contents.fp32_contents) == [0.25, 0.75]
    assert list(theirs.outputs[1].contents.int64_contents) == [1]
    assert list(theirs.outputs[2].contents.bytes_contents) == [b"yield"]


def _answer_outputs() -> dict[str, Any]:
    return {
        "probabilities": np.array([[0.25, 0.75]], np.float32),
        "label": np.array([1]),
        "names": np.array([b"yield"], dtype=object),
    }


def test_half_floats_have_no_typed_form() -> None:
    """An answer with an FP16 output is raw even to a typed request: there is no other way."""
    outputs = {"a": np.zeros(1, np.float16), "b": np.zeros(1, np.float32)}
    response = codec.build_response(_request(typed=True), outputs)
    assert len(response.raw_output_contents) == 2


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200))
def test_garbage_bytes(data: bytes) -> None:
    """Random bytes are InputError, whatever stage finds out, and never another exception."""
    _receive(data)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 200), st.integers(0, 255), st.booleans())
def test_one_byte_changed(position: int, value: int, typed: bool) -> None:
    """A good request with any one byte of its head changed is read or refused, nothing else."""
    data = bytearray(valid(Target(shape=(1, 2, 2)), typed=typed).SerializeToString())
    data[position % len(data)] = value
    _receive(bytes(data))


def _receive(data: bytes) -> None:
    try:
        request = codec.parse(ModelInferRequest, data)
        codec.check_request(request)
        codec.read_input(request, "images")
        codec.plan_request(request, mapped="logits")
    except InputError:
        pass


def test_plan_leaves_a_plain_request_alone() -> None:
    """Without guard outputs or a list of outputs, the very request is forwarded."""
    request = _request()
    plan = codec.plan_request(request, mapped="logits")
    assert plan.forward is request
    assert (plan.raw, plan.guard_outputs, plan.hidden) == (True, (), frozenset())
    assert plan.upstream_outputs


def test_plan_adds_the_mapped_output() -> None:
    """Where the client lists other outputs, the one that guard reads is asked for, then hidden."""
    request = _request("features")
    plan = codec.plan_request(request, mapped="logits")
    assert [output.name for output in plan.forward.outputs] == ["features", "logits"]
    assert plan.hidden == {"logits"}
    assert [output.name for output in request.outputs] == ["features"]
    assert codec.plan_request(_request("logits"), mapped="logits").hidden == frozenset()


def test_plan_takes_guard_outputs_out() -> None:
    """guard_* outputs never reach the upstream; parameters, id and contents do, as they came."""
    request = _request("guard_scores", "logits", "guard_decision")
    request.outputs[1].parameters["binary_data"].bool_param = True
    request.parameters["priority"].int64_param = 3
    plan = codec.plan_request(request, mapped="logits")
    assert plan.guard_outputs == ("guard_scores", "guard_decision")
    assert [output.name for output in plan.forward.outputs] == ["logits"]
    assert plan.forward.outputs[0].parameters["binary_data"].bool_param
    assert plan.forward.parameters["priority"].int64_param == 3
    assert plan.forward.id == "7"
    assert plan.forward.raw_input_contents == request.raw_input_contents


def test_plan_for_guard_outputs_alone() -> None:
    """A client that asks for guard's outputs alone gets none of the upstream's."""
    plan = codec.plan_request(_request("guard_p_value"), mapped="logits")
    assert [output.name for output in plan.forward.outputs] == ["logits"]
    assert not plan.upstream_outputs


def test_plan_renames_the_model() -> None:
    """The upstream's name of the model replaces the client's in the forwarded request only."""
    request = _request()
    plan = codec.plan_request(request, model_name="resnet")
    assert (plan.forward.model_name, request.model_name) == ("resnet", "signs")


def test_plan_refuses_classification_of_the_mapped_output() -> None:
    """Triton would answer with strings instead of the numbers that guard has to read."""
    request = _request("logits")
    request.outputs[0].parameters["classification"].int64_param = 1
    with pytest.raises(InputError, match="classification"):
        codec.plan_request(request, mapped="logits")


def test_wanted_outputs() -> None:
    """All of the model's own outputs by default, else those named; guard's only by name."""
    available = ("probabilities", "label")
    assert codec.wanted_outputs(_request(), available) == available
    asked = _request("guard_p_value", "label")
    assert codec.wanted_outputs(asked, available) == ("guard_p_value", "label")
    with pytest.raises(InputError, match="this model has probabilities, label"):
        codec.wanted_outputs(_request("logits"), available)


def test_parameters_round_trip() -> None:
    """Parameters keep their Python types; one without a value is left out."""
    values = {"a": True, "b": -7, "c": 0.5, "d": "text"}
    response = ModelInferResponse()
    codec.set_parameters(response, values)
    response.parameters["empty"].SetInParent()
    assert codec.get_parameters(response) == values
    assert [type(value) for value in codec.get_parameters(response).values()].count(bool) == 1


def test_guard_outputs() -> None:
    """The verdict as tensors: the datatypes and shapes that clients are told."""
    outputs = codec.guard_outputs(_verdicts([0, 1, 4]), codec.GUARD_OUTPUTS)
    forms = {name: (str(array.dtype), array.shape) for name, array in outputs.items()}
    assert forms == {
        "guard_decision": ("int32", (3,)),
        "guard_p_value": ("float32", (3,)),
        "guard_scores": ("float32", (3, 2)),
    }
    assert codec.guard_outputs(_verdicts([0]), ["label"]) == {}


def test_guard_parameters() -> None:
    """The verdict as parameters: one name per image, and whether an answer was replaced."""
    assert codec.guard_parameters(_verdicts([0])) == {
        "guard_decision": "ALLOW",
        "guard_substituted": False,
    }
    assert codec.guard_parameters(_verdicts([2, 4], [True, False])) == {
        "guard_decision": "BLOCK,ERROR",
        "guard_substituted": True,
    }


def test_guard_tensors() -> None:
    """guard.v1.Tensor carries arrays and strings; a wrong size names the tensor."""
    for array in (np.arange(6.0).reshape(2, 3), np.array([b"ab"], dtype=object)):
        assert codec.unpack_tensor(codec.pack_tensor(array), "x").tolist() == array.tolist()
    tensor = codec.pack_tensor(np.zeros(3))
    tensor.shape[0] = 4
    with pytest.raises(InputError, match="images: 24 raw bytes"):
        codec.unpack_tensor(tensor, "images")


NO_ROOM = """
import resource
from guard.errors import InputError
from guard.gateway import codec
from guard.gateway.protocol import ModelInferRequest
from guard.testing import clean_images
from tests.gateway.wire import infer_request

good, kept, hog = infer_request(clean_images([0])).SerializeToString(), [], []
error = caught = None  # a new name would need memory when there is none
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used, -1))
for size in (1 << 20, 1 << 14, 1 << 10, 128):
    try:
        while True:
            hog.append(bytearray(size))
    except MemoryError:
        pass
try:
    for _ in range(100_000):
        kept.append(codec.parse(ModelInferRequest, good))
except (MemoryError, InputError) as caught:
    error = caught
hog.clear()
print(type(error).__name__)
"""


def test_a_lack_of_memory_is_not_the_callers_mistake() -> None:
    """protobuf cannot tell; a good request that finds no room is no InputError."""
    done = subprocess.run([sys.executable, "-c", NO_ROOM], capture_output=True, text=True)
    assert done.stdout.strip() == "MemoryError", done.stderr
