"""From torch modules to the two ONNX files of a pack, and the proof that both say the same.

The files are single, their batch is dynamic, and every weight is an initialiser under its name in
the module's state, bit for bit: `guard.defenses.load` rebuilds the modules from nothing else.
"""

import copy
import warnings
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxscript
import torch
from onnx import ModelProto, numpy_helper
from onnx.helper import make_tensor_value_info
from torch import Tensor, nn

from guard.defenses.detector import Detector
from guard.defenses.evidence import EvidenceGraph
from guard.defenses.load import weights
from guard.errors import NumericError, PackError
from guard.onnx import Session
from guard.training.precision import store_half

OPSET = 20
# A request asks for the first two alone, and the runtime computes nothing for the others' sake.
OUTPUTS = ("evidence", "probabilities", "members", "views", "answers")
SHOWN = OUTPUTS[2:]  # to people, never to the detector: two digits less are good enough
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
        """The largest difference of a continuous number that a verdict depends on."""
        ignored = (*STEPS, *SHOWN)
        return max(value for name, value in self.largest.items() if name not in ignored)

    def require(self, tolerance: float = TOLERANCE) -> "Parity":
        """Itself; raises NumericError when the two engines do not agree.

        The tolerance is for numbers in [0, 1]. L1 distances lie in [0, 2] and may differ twice as
        much, logarithms ten times, what is only shown a hundred times.
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
    explaining = copy.copy(graph)  # the same weights under the same names
    explaining.forward = graph.explain  # type: ignore[method-assign, assignment]
    _export(explaining, path, {"images": images, "noise": noise}, OUTPUTS)


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
        evidence, *rest = graph.explain(images, noise)
    out = Session(model).run({"images": images.numpy(), "noise": noise.numpy()})
    columns = _largest(graph.columns, evidence, out["evidence"])
    for name, ours in zip(OUTPUTS[1:], rest, strict=True):
        if ours.numel():  # there are graphs without views
            columns |= _largest([name], ours, out[name])
    probabilities = rest[0]
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
    if column in SHOWN:
        return 100.0
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
    state = weights(module.eval().cpu())
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise PackError(f"{name} is not finite")
    model = _simplified(_traced(module, inputs, outputs), state)
    _strip(model)
    _check(model, state)
    store_half(model, state)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _traced(module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> ModelProto:
    """The module as the exporter sees it, with a dynamic batch; raises PackError."""
    batch = torch.export.Dim("N")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                tuple(inputs.values()),
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes={name: {0: batch} for name in inputs},
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
                optimize=False,
            )
    except torch.onnx.OnnxExporterError as error:
        cause = " ".join(str(error.__cause__ or error).split())[:200]
        raise PackError(f"torch cannot export this module: {cause}") from error
    if program is None:  # what torch's signature allows, not what it does
        raise PackError("torch exported nothing")
    return program.model_proto


def _simplified(model: ModelProto, names: Container[str]) -> ModelProto:
    """Without what is constant, except the weights: they stay whole, single and named.

    The optimiser would fold them into others, merge equal ones and drop biases that are zero, so
    it is shown them as inputs.
    """
    graph = model.graph
    hidden = [x for x in graph.initializer if x.name in names]
    others = [x for x in graph.initializer if x.name not in names]
    count = len(graph.input)
    graph.input.extend(make_tensor_value_info(x.name, x.data_type, x.dims) for x in hidden)
    del graph.initializer[:]
    graph.initializer.extend(others)
    model = onnxscript.optimizer.optimize(model)
    del model.graph.input[count:]
    model.graph.initializer.extend(hidden)
    return model


def _strip(model: ModelProto) -> None:
    """Remove the exporter's stack traces: they hold the paths of this machine."""
    graph = model.graph
    parts: list[Any] = [model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer]
    for part in parts:
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.value_info[:]


def _check(model: ModelProto, state: Mapping[str, Tensor]) -> None:
    """Make sure that every weight is there, under its name, bit for bit; raises PackError."""
    found = {x.name: numpy_helper.to_array(x) for x in model.graph.initializer}
    for name, tensor in state.items():
        value = tensor.detach().cpu().numpy()
        if name not in found:
            raise PackError(f"the exporter did not store {name}")
        if found[name].tobytes() != value.tobytes():
            raise PackError(f"the exporter changed {name}")


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
