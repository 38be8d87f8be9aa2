"""An ONNX file as upstream: its answers, its complaints, its batches."""

import asyncio
import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from guard.errors import ConfigError, InputError, PackError, UpstreamError
from guard.gateway import answers, codec, embedded, protocol
from guard.gateway.embedded import OnnxUpstream
from guard.gateway.upstream import Question
from guard.testing import SHAPE, classifier_onnx, clean_images
from tests.gateway.wire import infer_request


def embed(folder: Path, model: bytes) -> OnnxUpstream:
    """These bytes as an upstream."""
    (folder / "model.onnx").write_bytes(model)
    return OnnxUpstream(folder / "model.onnx", model="tiny", shape=SHAPE, max_batch=8, max_queue=64)


def question(request: protocol.Message, pixels: NDArray[Any] | None = None) -> Question:
    """A request as the gateway hands it over."""
    return Question(request, None, clean_images([0]) if pixels is None else pixels, 5.0)


def graph(nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any]) -> bytes:
    """A small model; `inputs` and `outputs` give (type, shape) by name."""
    values = [
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in part.items()]
        for part in (inputs, outputs)
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "g", *values),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


FLOAT = TensorProto.FLOAT


async def test_callers_share_a_run_and_get_their_own_rows(tmp_path: Path) -> None:
    """Concurrent requests of different sizes are answered as if alone."""
    upstream = embed(tmp_path, classifier_onnx())
    sizes = [[0], [1, 2], [2, 0, 1]]
    replies = await asyncio.gather(
        *(upstream.infer(question(infer_request(clean_images(labels)))) for labels in sizes)
    )
    for labels, reply in zip(sizes, replies, strict=True):
        logits = answers.read_output(reply.response, "logits")
        assert logits.argmax(axis=1).tolist() == labels
        assert (reply.response.model_name, reply.response.model_version) == ("tiny", "1")
    await upstream.close()


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda r: setattr(r.inputs[0], "name", "pixels"), "no such input"),
        (lambda r: r.inputs[0].shape.__setitem__(slice(None), [1, 3, 4, 16]), "does not fit"),
        (lambda r: r.outputs.add(name="other"), "no output 'other'"),
    ],
)
async def test_its_complaints_name_what_is_wrong(tmp_path: Path, spoil: Any, problem: str) -> None:
    """Names, shapes and outputs that the model does not have are the caller's mistakes."""
    upstream = embed(tmp_path, classifier_onnx())
    request = infer_request(clean_images([0]))
    spoil(request)
    with pytest.raises(InputError, match=problem):
        await upstream.infer(question(request))
    as_bytes = infer_request(np.zeros((1, *SHAPE), np.uint8))
    with pytest.raises(InputError, match="takes float32, not uint8"):
        await upstream.infer(question(as_bytes))


async def test_encoded_pictures_arrive_as_pixels(tmp_path: Path) -> None:
    """A model of floats behind a tensor of files gets what guard decoded."""
    upstream = embed(tmp_path, classifier_onnx())
    request = infer_request(np.array([b"a file"], dtype=object))
    reply = await upstream.infer(question(request, clean_images([2])))
    assert answers.read_output(reply.response, "logits").argmax() == 2


async def test_a_model_that_does_not_answer_row_by_row_is_run_for_each_caller(
    tmp_path: Path,
) -> None:
    """An output over the whole batch must not mix strangers."""
    node = helper.make_node("ReduceMean", ["images"], ["mean"], axes=[0], keepdims=0)
    model = graph([node], {"images": (FLOAT, ["N", *SHAPE])}, {"mean": (FLOAT, list(SHAPE))})
    upstream = embed(tmp_path, model)
    replies = await asyncio.gather(
        *(upstream.infer(question(infer_request(clean_images([label])))) for label in (0, 1, 2))
    )
    for label, reply in enumerate(replies):
        mean = answers.read_output(reply.response, "mean")
        assert np.array_equal(mean, clean_images([label])[0])


async def test_a_model_of_two_inputs(tmp_path: Path) -> None:
    """Every input of the request is fed; one that is missing is named."""
    node = helper.make_node("Add", ["images", "bias"], ["sum"])
    model = graph(
        [node],
        {"images": (FLOAT, ["N", *SHAPE]), "bias": (FLOAT, [1])},
        {"sum": (FLOAT, ["N", *SHAPE])},
    )
    upstream = embed(tmp_path, model)
    request = infer_request(clean_images([0]))
    with pytest.raises(InputError, match="bias: the model's input is missing"):
        await upstream.infer(question(request))
    bias = codec.pack_tensor(np.ones(1, np.float32))
    request.inputs.add(name="bias", datatype=bias.datatype, shape=bias.shape)
    request.raw_input_contents.append(bias.data)
    reply = await upstream.infer(question(request))
    total = answers.read_output(reply.response, "sum")
    assert np.array_equal(total, clean_images([0]) + 1)


async def test_a_model_that_fails_says_nothing_of_its_insides(tmp_path: Path) -> None:
    """ONNX Runtime's own message, which names nodes and paths, stays here."""
    node = helper.make_node("Reshape", ["images", "shape"], ["out"])
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [7, -1])
    values = [helper.make_tensor_value_info("images", FLOAT, ["N", *SHAPE])]
    out = [helper.make_tensor_value_info("out", FLOAT, [7, None])]
    model = helper.make_model(
        helper.make_graph([node], "g", values, out, [shape]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    upstream = embed(tmp_path, bytes(model.SerializeToString()))
    with pytest.raises(UpstreamError, match="the embedded model failed"):
        await upstream.infer(question(infer_request(clean_images([0]))))


async def test_metadata_comes_from_the_file(tmp_path: Path) -> None:
    """Names, types and shapes, with -1 where a size is free."""
    upstream = embed(tmp_path, classifier_onnx())
    about = await upstream.metadata()
    assert [(t.name, t.datatype, list(t.shape)) for t in (*about.inputs, *about.outputs)] == [
        ("images", "FP32", [-1, *SHAPE]),
        ("logits", "FP32", [-1, 3]),
    ]
    assert await upstream.ready()


def test_a_file_that_is_not_there_or_no_model(tmp_path: Path) -> None:
    """One plain error each."""
    with pytest.raises(ConfigError, match="none"):
        OnnxUpstream(tmp_path / "none.onnx", model="x", shape=SHAPE, max_batch=1, max_queue=1)
    with pytest.raises(PackError):
        embed(tmp_path, b"not a model")


async def test_an_embedded_model_keeps_to_the_callers_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that hangs is a DEADLINE_EXCEEDED of the upstream, like one behind gRPC."""
    monkeypatch.setattr(embedded, "STUCK_SECONDS", 0.05)
    upstream, mended = embed(tmp_path, classifier_onnx()), threading.Event()
    whole = upstream._run

    def hang(feeds: dict[str, Any]) -> Any:
        mended.wait(10)
        return whole(feeds)

    upstream._run = hang  # type: ignore[method-assign]
    asked = question(infer_request(clean_images([0])))
    with pytest.raises(UpstreamError, match="in time") as caught:
        await upstream.infer(dataclasses.replace(asked, timeout=0.1))
    assert caught.value.code == "DEADLINE_EXCEEDED"
    assert upstream.stuck and not await upstream.ready()
    mended.set()
    assert (await upstream.infer(asked)).response.model_name == "tiny"
    assert not upstream.stuck
    await upstream.close()
