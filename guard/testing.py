"""Test doubles for guard's own tests and yours: a tiny pack, pictures for it, a fake model server.

    async with FakeUpstream() as upstream:
        config = gateway_config(make_pack(tmp_path / "tiny"), upstream=upstream.address)
        async with running(config) as gateway:
            ...  # any inference client at gateway.address, model "tiny"

Nothing here is trained and nothing needs torch: the pack's classifier names the strongest colour
channel, its defence is suspicious of stripes. Building the pack needs the package `onnx`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guard import calibration, pack
from guard.calibration import Calibration
from guard.config import Config, Gateway, Model
from guard.gateway.fake import CLASSES, SHAPE, SHARPNESS, FakeUpstream, answer_colour
from guard.onnx import Session

Floats = NDArray[np.float32]

__all__ = [
    "CLASSES",
    "SHAPE",
    "FakeUpstream",
    "answer_colour",
    "classifier_onnx",
    "clean_images",
    "gateway_config",
    "make_pack",
    "suspicious_images",
]

ALONE = ("stripes", "detector")
UPSTREAM = ("stripes", "upstream", "detector")


def clean_images(labels: list[int], shape: tuple[int, int, int] = SHAPE) -> Floats:
    """Plain pictures (N, C, H, W), each of the colour its label names."""
    images = np.full((len(labels), *shape), 0.2, np.float32)
    images[np.arange(len(labels)), labels] = 0.8
    return images


def suspicious_images(labels: list[int], shape: tuple[int, int, int] = SHAPE) -> Floats:
    """The same pictures under stripes, which the tiny pack flags at any budget above 0.005."""
    images = clean_images(labels, shape)
    images[:, :, :, ::2] -= 0.15
    images[:, :, :, 1::2] += 0.15
    return images


def make_pack(folder: Path, *, shape: tuple[int, int, int] = SHAPE) -> Path:
    """Write a pack that any `Pipeline.load` accepts, in milliseconds; returns its folder.

    Signed with this operator's key, which is made where there is none (`GUARD_HOME` says where).
    """
    folder.mkdir(parents=True)
    (folder / "evidence.onnx").write_bytes(_evidence_graph(shape))
    (folder / "detector.onnx").write_bytes(_detector_graph())
    (folder / "calibration.npz").write_bytes(calibration.dump(_calibrations()))
    _write_golden(folder, shape)
    (folder / "MODEL_CARD.md").write_text("A pack for tests. It defends nothing.\n")
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", folder.name)
    pack.write_manifest(folder, _manifest(name, shape))
    if name not in pack.shipped_digests():
        pack.sign_pack(folder)
    return folder


def classifier_onnx(shape: tuple[int, int, int] = SHAPE) -> bytes:
    """An embedded upstream: `images` FP32 [N, C, H, W] to `logits` FP32 [N, 3]."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("ReduceMean", ["images"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("Mul", ["means", "sharpness"], ["logits"]),
    ]
    sharpness = helper.make_tensor("sharpness", TensorProto.FLOAT, [], [SHARPNESS])
    return _model(nodes, {"images": ["N", *shape]}, {"logits": ["N", shape[0]]}, [sharpness])


def gateway_config(
    pack_folder: Path,
    *,
    upstream: str = "",
    gateway: Mapping[str, Any] | None = None,
    **model: Any,
) -> Config:
    """Settings for a gateway on a free loopback port, without metrics endpoint.

    `gateway` and the other arguments override single settings of the gateway and the model.
    """
    settings = {"name": pack_folder.name, "pack": str(pack_folder), "upstream": upstream}
    if not upstream:
        settings["answer"] = "ensemble"
    return Config(
        models=[Model(**{**settings, **model})],
        gateway=Gateway(
            **{"listen": "127.0.0.1:0", "metrics": "", "drain": 0.5, **(gateway or {})}
        ),
    )


# ── the tiny pack ────────────────────────────────────────────────────────────────────────────────


def _manifest(name: str, shape: tuple[int, int, int]) -> dict[str, Any]:
    return {
        "name": name,
        "classes": list(CLASSES),
        "input": {"shape": list(shape)},
        "evidence": {"columns": ["stripes"], "noise_copies": 0},
        "scores": {"alone": list(ALONE), "upstream": list(UPSTREAM)},
        "members": [{"name": "colour", "role": "robust"}],
    }


def _calibrations() -> dict[str, Calibration]:
    ramp = np.linspace(0, 0.05, 999, dtype=np.float32)
    return {
        "alone": Calibration.fit(ALONE, np.stack([ramp] * 2, axis=1)),
        "upstream": Calibration.fit(UPSTREAM, np.stack([ramp, ramp, 2 * ramp], axis=1)),
    }


def _write_golden(folder: Path, shape: tuple[int, int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
    graph, detector = Session(folder / "evidence.onnx"), Session(folder / "detector.onnx")
    seen = graph.run({"images": images.astype(np.float32) / np.float32(255)})
    one_hot = np.eye(len(CLASSES), dtype=np.float32)[[0, 1]]
    feeds = {"evidence": seen["evidence"], "probabilities": seen["probabilities"]}
    np.savez(
        folder / "golden.npz",
        images=images,
        noise=np.zeros((2, 0, *shape), np.float32),
        labels=np.array([0, 1]),
        probabilities=seen["probabilities"],
        scores_alone=detector.run({**feeds, "upstream": one_hot})["scores_alone"],
        scores_upstream=detector.run({**feeds, "upstream": one_hot})["scores_upstream"],
    )


def _evidence_graph(shape: tuple[int, int, int]) -> bytes:
    """Probabilities from the channels' means; stripes: mean difference of neighbours in a row."""
    from onnx import TensorProto, helper, numpy_helper

    def ints(name: str, *values: int) -> Any:
        return numpy_helper.from_array(np.array(values, np.int64), name)

    nodes = [
        helper.make_node("ReduceMean", ["images"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("Mul", ["means", "sharpness"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("Slice", ["images", "one", "end", "axis"], ["right"]),
        helper.make_node("Slice", ["images", "zero", "minus", "axis"], ["left"]),
        helper.make_node("Sub", ["right", "left"], ["difference"]),
        helper.make_node("Abs", ["difference"], ["size"]),
        helper.make_node("ReduceMean", ["size"], ["stripes"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["stripes", "one"], ["evidence"]),
    ]
    constants = [
        helper.make_tensor("sharpness", TensorProto.FLOAT, [], [SHARPNESS]),
        *(
            ints("zero", 0),
            ints("one", 1),
            ints("minus", -1),
            ints("end", 1 << 30),
            ints("axis", 3),
        ),
    ]
    outputs = {"evidence": ["N", 1], "probabilities": ["N", len(CLASSES)]}
    return _model(nodes, {"images": ["N", *shape]}, outputs, constants)


def _detector_graph() -> bytes:
    """Alone: the stripes. With an upstream: plus the log-odds against its answer."""
    from onnx import TensorProto, helper, numpy_helper

    axis = numpy_helper.from_array(np.array([1], np.int64), "axis")
    tiny = helper.make_tensor("tiny", TensorProto.FLOAT, [], [1e-12])
    nodes = [
        helper.make_node("Concat", ["evidence", "evidence"], ["scores_alone"], axis=1),
        helper.make_node("Max", ["probabilities", "tiny"], ["floored"]),
        helper.make_node("Log", ["floored"], ["logs"]),
        helper.make_node("ReduceMax", ["logs"], ["best"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["logs", "upstream"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "axis"], ["theirs"], keepdims=1),
        helper.make_node("Sub", ["best", "theirs"], ["odds"]),
        helper.make_node("Add", ["evidence", "odds"], ["both"]),
        helper.make_node("Concat", ["evidence", "odds", "both"], ["scores_upstream"], axis=1),
    ]
    inputs = {"evidence": ["N", 1], "probabilities": ["N", 3], "upstream": ["N", 3]}
    outputs = {"scores_alone": ["N", 2], "scores_upstream": ["N", 3]}
    return _model(nodes, inputs, outputs, [axis, tiny])


def _model(
    nodes: list[Any], inputs: Mapping[str, Any], outputs: Mapping[str, Any], constants: list[Any]
) -> bytes:
    from onnx import TensorProto, helper

    def values(shapes: Mapping[str, Any]) -> list[Any]:
        return [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in shapes.items()
        ]

    graph = helper.make_graph(nodes, "tiny", values(inputs), values(outputs), constants)
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    return bytes(model.SerializeToString())
