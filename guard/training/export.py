"""From torch modules to the two ONNX files of a pack, and the proof that both say the same.

The files are single, their batch is dynamic, and every weight is an initialiser under its name in
the module's state, bit for bit: `guard.defenses.load` rebuilds the modules from nothing else.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto, numpy_helper
from torch import Tensor, nn

from guard.defenses.detector import Detector
from guard.defenses.evidence import EvidenceGraph
from guard.errors import NumericError, PackError
from guard.onnx import Array, Session

OPSET = 20
TOLERANCE = 1e-5
# Logarithms of probabilities inherit the logits' own rounding (1e-6 of a logit of 20 to 50).
LOGARITHMS = ("robust_confidence", "robust_margin", "sentinel_odds", "sentinel_confidence")
STEPS = ("noise_flips",)  # columns that count votes; they are compared exactly


@dataclass(frozen=True)
class Parity:
    """How far ONNX Runtime is from torch on the same inputs."""

    largest: Mapping[str, float]  # largest difference by column, relative where |value| > 1
    decisions_equal: bool  # labels and votes

    @property
    def worst(self) -> float:
        """The largest difference of a continuous number."""
        return max(value for name, value in self.largest.items() if name not in STEPS)

    def require(self, tolerance: float = TOLERANCE) -> "Parity":
        """Itself; raises NumericError when the two engines do not agree.

        The tolerance is for numbers in [0, 1]. L1 distances lie in [0, 2] and may differ twice as
        much, logarithms ten times.
        """
        limits = {name: tolerance * _span(name) for name in self.largest if name not in STEPS}
        far = [name for name, limit in limits.items() if not self.largest[name] <= limit]
        if far or not self.decisions_equal:
            column = max(far or self.largest, key=lambda name: self.largest[name])
            raise NumericError(
                f"ONNX Runtime and torch differ by {self.largest[column]:.1e} in {column}"
            )
        return self


def export_evidence(graph: EvidenceGraph, path: Path, *, shape: Sequence[int]) -> None:
    """Write `evidence.onnx` for images of `shape` (C, H, W); raises PackError."""
    images = torch.rand(3, *shape)
    noise = torch.zeros(3, graph.copies, *shape)
    outputs = ("evidence", "probabilities")
    _export(graph, path, {"images": images, "noise": noise}, outputs)


def export_detector(detector: Detector, path: Path, *, classes: int) -> None:
    """Write `detector.onnx` for K = `classes`; raises PackError."""
    # Three tensors of their own: torch would take the same tensor twice for one input.
    inputs = {
        "evidence": torch.zeros(3, len(detector.columns)),
        "probabilities": torch.full((3, classes), 1.0 / classes),
        "upstream": torch.full((3, classes), 1.0 / classes),
    }
    _export(detector, path, inputs, ("scores_alone", "scores_upstream"))


def evidence_parity(graph: EvidenceGraph, model: Path, images: Tensor, noise: Tensor) -> Parity:
    """Both engines on images (N, C, H, W) and noise (N, S, C, H, W)."""
    with torch.no_grad():
        evidence, probabilities = graph(images, noise)
    out = Session(model).run({"images": images.numpy(), "noise": noise.numpy()})
    columns = _largest(graph.columns, evidence, out["evidence"])
    columns |= _largest(["probabilities"], probabilities, out["probabilities"])
    labels = bool((probabilities.argmax(1).numpy() == out["probabilities"].argmax(1)).all())
    return Parity(columns, labels and not any(columns.get(name, 0.0) for name in STEPS))


def detector_parity(
    detector: Detector, model: Path, evidence: Tensor, probabilities: Tensor, upstream: Tensor
) -> Parity:
    """Both engines on evidence (N, E), probabilities (N, K) and the upstream's (N, K)."""
    with torch.no_grad():
        alone, both = detector(evidence, probabilities, upstream)
    feeds = {"evidence": evidence, "probabilities": probabilities, "upstream": upstream}
    out = Session(model).run({name: value.numpy() for name, value in feeds.items()})
    names = [f"alone:{name}" for name in detector.score_names(False)]
    scores = _largest(names, alone, out["scores_alone"])
    names = [f"upstream:{n}" for n in detector.score_names(True)]
    return Parity(scores | _largest(names, both, out["scores_upstream"]), True)


def _span(column: str) -> float:
    """How much wider than [0, 1] a column is, for comparing engines."""
    if column in LOGARITHMS:
        return 10.0
    return 2.0 if column.startswith("squeeze_") else 1.0


def probe_images(count: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Images (count, C, H, W) in [0, 1] from no data set: noise, gradients, blocks, flat ones.

    All but the noise are rounded to 8 bits, as pictures are.
    """
    C, H, W = shape
    noise = torch.rand(count, C, H, W, generator=generator)
    low, high = torch.rand(2, count, C, 1, 1, generator=generator)
    ramp = torch.linspace(0, 1, W).expand(count, C, H, W)
    coarse = torch.rand(count, C, 4, 4, generator=generator)
    blocks = nn.functional.interpolate(coarse, size=(H, W), mode="nearest")
    kinds = torch.stack([noise, low + (high - low) * ramp, blocks, low.expand(-1, -1, H, W)])
    chosen = kinds[torch.arange(count) % 4, torch.arange(count)]
    rounded = torch.round(chosen * 255) / 255
    return torch.where((torch.arange(count) % 4 == 0)[:, None, None, None], noise, rounded)


def _export(
    module: nn.Module, path: Path, inputs: Mapping[str, Tensor], outputs: Sequence[str]
) -> None:
    batch = torch.export.Dim("N")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval().cpu(),
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes={name: {0: batch} for name in inputs},
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    if program is None:  # what torch's signature allows, not what it does
        raise PackError("torch exported nothing")
    model = program.model_proto
    _strip(model)
    _restore(model, module.state_dict())
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _strip(model: ModelProto) -> None:
    """Remove the exporter's stack traces: they hold the paths of this machine."""
    graph = model.graph
    parts: list[Any] = [model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer]
    for part in parts:
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.value_info[:]


def _restore(model: ModelProto, state: Mapping[str, Tensor]) -> None:
    """Make sure that every weight is there, under its name, bit for bit; raises PackError.

    The exporter drops biases that are zero and merges equal ones; they are put back.
    """
    found = {x.name: numpy_helper.to_array(x) for x in model.graph.initializer}
    for name, tensor in state.items():
        value = tensor.detach().cpu().numpy()
        if not np.isfinite(value).all():
            raise PackError(f"{name} is not finite")
        if name not in found:
            _put_back(model, found, name, value)
        elif found[name].tobytes() != value.tobytes():
            raise PackError(f"the exporter changed {name}")


def _put_back(model: ModelProto, found: Mapping[str, Array], name: str, value: Array) -> None:
    """Give the layer of a dropped or merged bias its own initialiser again."""
    weight = name.removesuffix("bias") + "weight"
    nodes = [node for node in model.graph.node if weight in node.input[1:2]]
    if not name.endswith("bias") or len(nodes) != 1:
        raise PackError(f"the exporter did not store {name}")
    inputs = nodes[0].input
    used = found.get(inputs[2]) if len(inputs) > 2 else np.zeros_like(value)
    if used is None or not np.array_equal(used, value):
        raise PackError(f"the exporter replaced {name}")
    del inputs[2:]
    inputs.append(name)
    model.graph.initializer.append(numpy_helper.from_array(value, name))


def _largest(names: Sequence[str], ours: Tensor, theirs: object) -> dict[str, float]:
    """Largest difference by column; one name for all columns is allowed."""
    mine = ours.numpy()
    difference = np.abs(mine - np.asarray(theirs)) / np.maximum(np.abs(mine), 1.0)
    if len(names) == 1:
        return {names[0]: float(difference.max())}
    return dict(zip(names, difference.max(0).tolist(), strict=True))


def export_classifier(network: nn.Module, path: Path, *, shape: Sequence[int]) -> None:
    """Write one classifier: `images` (N, C, H, W) in [0, 1] to `logits` (N, K)."""
    _export(network, path, {"images": torch.rand(3, *shape)}, ("logits",))
