"""Weights in half precision."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from guard.defenses.load import fill, initializers
from guard.onnx import Session
from guard.training.export import export_classifier
from guard.training.precision import BIG, round_half

SHAPE = (3, 8, 8)


class Classifier(nn.Module):
    """One weight of 98 kB, one of 20 kB."""

    def __init__(self) -> None:
        super().__init__()
        self.big = nn.Linear(192, 128)
        self.small = nn.Linear(128, 40)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, 40)."""
        logits: torch.Tensor = self.small(torch.relu(self.big(images.flatten(1))))
        return logits


@pytest.fixture(scope="module", params=[True, False], ids=["rounded", "as trained"])
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Classifier, Path]:
    """A classifier, rounded or not, and its file."""
    torch.manual_seed(0)
    module = Classifier().eval()
    if request.param:
        round_half(module)
    path = tmp_path_factory.mktemp("half") / "classifier.onnx"
    export_classifier(module, path, shape=SHAPE)
    return module, path


def test_rounding_changes_big_weights_only_and_little() -> None:
    """Each big weight moves by at most 2^-11 of itself (or 2^-25), a small one not at all."""
    module = Classifier()
    before = {name: x.clone() for name, x in module.state_dict().items()}
    round_half(module)
    after = module.state_dict()
    moved = (after["big.weight"] - before["big.weight"]).abs()
    assert moved.max() > 0
    assert (moved <= (before["big.weight"].abs() * 2**-11).clamp(min=2**-25)).all()
    assert all(torch.equal(after[n], before[n]) for n in after if n != "big.weight")


def test_rounding_stays_finite() -> None:
    """A weight beyond the range of half precision becomes its largest number, not infinity."""
    module = Classifier()
    module.state_dict()["big.weight"][0, 0] = -1e6
    round_half(module)
    assert module.big.weight[0, 0] == -65504


def test_rounded_weights_take_half_the_bytes(exported: tuple[Classifier, Path]) -> None:
    """Stored in half precision when that loses nothing, else in full; small ones always in full."""
    module, path = exported
    kinds = {x.name: x.data_type for x in onnx.load(path).graph.initializer}
    exact = torch.equal(module.big.weight, module.big.weight.half().float())
    half, full = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    assert kinds["big.weight"] == (half if exact else full)
    assert kinds["small.weight"] == full
    assert module.big.weight.nbytes > BIG >= module.small.weight.nbytes
    assert exact == (path.stat().st_size < 192 * 128 * 2 + 128 * 40 * 4 + 8000)


def test_both_engines_compute_with_the_stored_weights(exported: tuple[Classifier, Path]) -> None:
    """ONNX Runtime and the rebuilt module give the logits of the module that was exported."""
    module, path = exported
    images = torch.rand(16, *SHAPE)
    out = Session(path, threads=1).run({"images": images.numpy()})["logits"]
    assert np.abs(out - module(images).detach().numpy()).max() < 1e-5
    rebuilt = Classifier()
    fill(rebuilt, initializers(path.read_bytes()))
    assert torch.equal(rebuilt(images), module(images))


def test_a_request_pays_for_no_cast(exported: tuple[Classifier, Path], tmp_path: Path) -> None:
    """ONNX Runtime has turned the weights back before the first request."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(str(exported[1]), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(tmp_path / "optimised.onnx").graph.node
    assert "Cast" not in {node.op_type for node in nodes}
    assert len(nodes) > 2
