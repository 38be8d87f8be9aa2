"""An upstream's answer: read into the pack's classes, masked, substituted, finished."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from guard.errors import ConfigError, UpstreamError
from guard.gateway import answers, codec, tensors
from guard.gateway.answers import OutputSpec, UnmaskableError
from guard.gateway.protocol import Message, ModelInferResponse
from tests.gateway.malformed import Target, valid

FORMS = pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
LOGITS = OutputSpec("logits", "logits", 3)


def _response(raw: bool = True, **outputs: Any) -> Message:
    response = ModelInferResponse(model_name="up", model_version="2", id="7")
    for name, array in outputs.items():
        codec.add_output(response, name, np.asarray(array), raw=raw)
    return response


def _plan(*outputs: str, mapped: str = "logits", typed: bool = False) -> codec.Plan:
    request = valid(Target(), typed=typed)
    for name in outputs:
        request.outputs.add(name=name)
    return codec.plan_request(request, mapped=mapped)


@FORMS
def test_logits(raw: bool) -> None:
    """Logits become probabilities by a softmax that large numbers do not overflow."""
    logits = np.array([[0, 0, 0], [1000, 0, -1000]], np.float32)
    found = answers.upstream_probabilities(_response(raw, logits=logits), LOGITS, 2)
    np.testing.assert_allclose(found, [[1 / 3] * 3, [1, 0, 0]], atol=1e-7)
    assert found.dtype == np.float32


def test_probabilities_are_taken_as_they_are() -> None:
    """Probabilities pass unchanged, also from FP64 and FP16 and with ones behind their shape."""
    values = np.array([[0.5, 0.25, 0.25]])
    spec = OutputSpec("p", "probabilities", 3)
    for kind in ("f8", "f4", "f2"):
        response = _response(p=values.astype(kind).reshape(1, 3, 1, 1))
        assert answers.upstream_probabilities(response, spec, 1).tolist() == values.tolist()


@pytest.mark.parametrize("values", [[0.5, 0.9, 0.5], [-1.0, 1.0, 1.0], [3.0, -1.0, -1.0]])
def test_what_is_no_probability_is_refused(values: list[float]) -> None:
    """Logits declared as probabilities are found out, and the message says where to look."""
    with pytest.raises(UpstreamError, match="kind"):
        answers.upstream_probabilities(
            _response(p=np.array([values])), OutputSpec("p", "probabilities", 3), 1
        )


@pytest.mark.parametrize("kind", ["i8", "i4", "u1", "f4"])
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_labels(kind: str, shape: tuple[int, ...]) -> None:
    """Labels of any number type become one-hot rows."""
    response = _response(label=np.array([2, 0, 1], kind).reshape(shape))
    found = answers.upstream_probabilities(response, OutputSpec("label", "label", 3), 3)
    assert found.argmax(axis=1).tolist() == [2, 0, 1]
    assert found.sum(axis=1).tolist() == [1, 1, 1]


def test_impossible_labels() -> None:
    """A label that is no class makes its row NaN, which can only end in ERROR."""
    response = _response(label=np.array([0, 3, -1, 0.5, np.nan, np.inf], np.float32))
    found = answers.upstream_probabilities(response, OutputSpec("label", "label", 3), 6)
    assert np.isnan(found).all(axis=1).tolist() == [False, True, True, True, True, True]


@settings(deadline=None)
@given(
    arrays.arrays(np.float32, (4, 3), elements=st.floats(-50, 50, width=32)),
    st.integers(0, 3),
    st.integers(0, 2),
    st.sampled_from([np.nan, np.inf, -np.inf]),
    st.sampled_from([None, (0, 1, 2), (2, 0, 1), (1, 1, 0)]),
    st.sampled_from(["logits", "probabilities"]),
)
def test_non_finite_rows(
    values: Any, row: int, column: int, value: float, classes: Any, kind: Any
) -> None:
    """One number that is not finite makes its row NaN throughout and leaves the others alone."""
    if kind == "probabilities":
        values = np.full((4, 3), 1 / 3, np.float32)
    values[row, column] = value
    spec = OutputSpec("out", kind, 3, classes)
    found = answers.upstream_probabilities(_response(out=values), spec, 4)
    broken = np.isnan(found)
    assert broken[row].all()
    assert broken.sum() == 3
    np.testing.assert_allclose(np.delete(found, row, 0).sum(axis=1), 1, atol=1e-5)


def test_class_map() -> None:
    """The upstream's classes are put in the pack's order; several may be one of the pack's."""
    response = _response(p=np.array([[0.1, 0.2, 0.3, 0.4]]))
    spec = OutputSpec("p", "probabilities", 3, (2, 0, 2, 0))
    found = answers.upstream_probabilities(response, spec, 1)
    np.testing.assert_allclose(found, [[0.6, 0, 0.4]], rtol=1e-6)
    labels = OutputSpec("label", "label", 3, (2, 0, 2, 0))
    found = answers.upstream_probabilities(_response(label=np.array([3])), labels, 1)
    assert found.tolist() == [[1, 0, 0]]
    with pytest.raises(ConfigError, match="class 3"):
        OutputSpec("p", "probabilities", 3, (0, 3))


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 4)), np.zeros((1, 3)), np.zeros(6), np.zeros((3, 2)), np.float32(0)],
)
def test_wrong_shapes(array: Any) -> None:
    """An answer for another number of images or classes is the upstream's error, and says so."""
    with pytest.raises(UpstreamError, match="expected \\[2, 3\\]"):
        answers.upstream_probabilities(_response(logits=array), LOGITS, 2)


def test_wrong_types() -> None:
    """Strings and BOOL are no logits; a missing output is named."""
    for array in (np.array([[b"a"] * 3], dtype=object), np.ones((1, 3), bool)):
        with pytest.raises(UpstreamError, match="not numbers"):
            answers.upstream_probabilities(_response(logits=array), LOGITS, 1)
    with pytest.raises(UpstreamError, match="no output 'logits'"):
        answers.upstream_probabilities(_response(other=np.zeros(1)), LOGITS, 1)


def test_malformed_answers() -> None:
    """Raw buffers that do not match the outputs are found before anything is read."""
    short = _response(logits=np.zeros((1, 3), np.float32))
    short.raw_output_contents[0] = b"\0" * 11
    with pytest.raises(UpstreamError, match="11 raw bytes"):
        answers.read_output(short, "logits")
    short.raw_output_contents.append(b"")
    with pytest.raises(UpstreamError, match="2 raw buffers for 1 outputs"):
        answers.check_response(short)
    twice = _response(logits=np.zeros(1))
    twice.outputs.add().CopyFrom(twice.outputs[0])
    with pytest.raises(UpstreamError, match="more than once"):
        answers.check_response(twice)


@FORMS
def test_mask_rows(raw: bool) -> None:
    """Marked rows are blank in every output, the others bit for bit what they were."""
    outputs = {
        "logits": np.arange(6, dtype=np.float32).reshape(2, 3),
        "label": np.array([1, 2]),
        "wide": np.array([[1], [2]], np.uint16),
        "name": np.array([b"stop", b"yield"], dtype=object),
    }
    response = _response(raw, **outputs)
    answers.mask_rows(response, np.array([False, True]))
    found = {name: answers.read_output(response, name) for name in outputs}
    assert np.isnan(found["logits"][1]).all()
    assert (found["label"][1], found["wide"][1, 0], found["name"][1]) == (-1, 65535, b"")
    for name, array in outputs.items():
        assert np.array_equal(found[name][0], array[0])
    assert bool(response.raw_output_contents) is raw


def test_mask_half_floats() -> None:
    """FP16 and BF16 are masked with NaN too, and keep their datatypes."""
    response = _response(half=np.ones((2, 2), np.float16))
    response.outputs.add(name="brain", datatype="BF16", shape=[2])
    response.raw_output_contents.append(tensors.to_raw(np.ones(2, np.float32), "BF16"))
    answers.mask_rows(response, np.array([True, False]))
    assert [output.datatype for output in response.outputs] == ["FP16", "BF16"]
    assert np.isnan(answers.read_output(response, "half")).tolist() == [[True] * 2, [False] * 2]
    assert np.isnan(answers.read_output(response, "brain")).tolist() == [True, False]


@pytest.mark.parametrize(
    "array", [np.zeros((3, 2)), np.float32(1), np.zeros((1, 2)), np.ones(2, bool)]
)
def test_unmaskable(array: Any) -> None:
    """An output that is not one row per image, or BOOL, is refused with nothing changed."""
    response = _response(logits=np.zeros((2, 3)), other=array)
    before = response.SerializeToString(deterministic=True)
    with pytest.raises(UnmaskableError, match="other"):
        answers.mask_rows(response, np.array([True, False]))
    assert response.SerializeToString(deterministic=True) == before
    answers.mask_rows(response, np.array([False, False]))  # nothing to mask, nothing to refuse


@FORMS
@pytest.mark.parametrize("kind", ["logits", "probabilities", "label"])
@pytest.mark.parametrize("classes", [None, (2, 0, 1)])
def test_substitute_rows(raw: bool, kind: Any, classes: Any) -> None:
    """A substituted row, read back through the same map, is what the ensemble said."""
    ensemble = np.array([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]], np.float32)
    array = np.array([1, 1]) if kind == "label" else np.full((2, 3), 1 / 3, np.float32)
    response = _response(raw, out=array, features=np.ones((2, 5), np.float32))
    spec = OutputSpec("out", kind, 3, classes)
    before = answers.upstream_probabilities(response, spec, 2)
    answers.substitute_rows(response, spec, np.array([False, True]), ensemble)
    found = answers.upstream_probabilities(response, spec, 2)
    expected = [0, 0, 1] if kind == "label" else ensemble[1]
    np.testing.assert_allclose(found[1], expected, atol=1e-6)
    assert np.array_equal(found[0], before[0])
    features = answers.read_output(response, "features")
    assert np.isnan(features).all(axis=1).tolist() == [False, True]


@FORMS
def test_finish_appends_in_the_matching_form(raw: bool) -> None:
    """Guard's outputs come behind the upstream's, in the upstream's form, with the parameters."""
    response = _response(raw, logits=np.zeros((1, 3), np.float32))
    untouched = response.outputs[0].SerializeToString()
    answers.finish_response(
        response,
        _plan("logits", "guard_decision"),
        outputs={"guard_decision": np.zeros(1, np.int32)},
        parameters={"guard_decision": "ALLOW"},
        model_name="signs",
    )
    assert [output.name for output in response.outputs] == ["logits", "guard_decision"]
    assert len(response.raw_output_contents) == (2 if raw else 0)
    assert response.outputs[0].SerializeToString() == untouched
    assert answers.read_output(response, "guard_decision").tolist() == [0]
    assert response.parameters["guard_decision"].string_param == "ALLOW"
    assert (response.model_name, response.model_version, response.id) == ("signs", "2", "7")


@FORMS
def test_finish_hides_what_only_guard_asked_for(raw: bool) -> None:
    """The mapped output is taken out again, its raw buffer with it."""
    response = _response(raw, logits=np.zeros((1, 3)), features=np.ones((1, 2)))
    answers.finish_response(response, _plan("features"), outputs={}, parameters={})
    assert [output.name for output in response.outputs] == ["features"]
    assert answers.read_output(response, "features").tolist() == [[1, 1]]


@pytest.mark.parametrize("typed", [True, False])
def test_finish_with_guard_outputs_alone(typed: bool) -> None:
    """Asked for guard's outputs alone, the answer has those alone."""
    response = _response(not typed, logits=np.zeros((1, 3), np.float32))
    plan = _plan("guard_p_value", typed=typed)
    answers.finish_response(
        response, plan, outputs={"guard_p_value": np.ones(1, np.float32)}, parameters={}
    )
    assert [output.name for output in response.outputs] == ["guard_p_value"]
    assert answers.read_output(response, "guard_p_value").tolist() == [1]
    assert bool(response.raw_output_contents) is not typed


def test_nobody_else_speaks_for_guard() -> None:
    """A verdict that the upstream itself sent is removed, the rest of its answer kept."""
    response = _response(logits=np.zeros((1, 3)), guard_decision=np.zeros(1, np.int32))
    codec.set_parameters(response, {"guard_decision": "ALLOW", "latency": 3})
    answers.finish_response(response, _plan(), outputs={}, parameters={})
    assert [output.name for output in response.outputs] == ["logits"]
    assert codec.get_parameters(response) == {"latency": 3}
    answers.check_response(response)


def test_finish_without_a_verdict_changes_nothing() -> None:
    """An upstream's answer to a plain request is forwarded bit for bit."""
    response = _response(logits=np.zeros((1, 3)), label=np.array([1]))
    response.outputs[0].parameters["note"].string_param = "kept"
    before = response.SerializeToString(deterministic=True)
    answers.finish_response(response, _plan(), outputs={}, parameters={})
    assert response.SerializeToString(deterministic=True) == before
