"""Export: parity, names, contents of the files."""

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from guard.defenses.detector import Detector
from guard.defenses.evidence import EvidenceGraph, Member, default_defenses
from guard.defenses.load import initializers
from guard.errors import NumericError, PackError
from guard.networks import build, fuse
from guard.onnx import Session
from guard.training.export import (
    OUTPUTS,
    Parity,
    detector_parity,
    evidence_parity,
    export_classifier,
    export_detector,
    export_evidence,
    probe_images,
)

SHAPE, CLASSES, COPIES = (3, 18, 16), 6, 2


def make_graph(head: float = 40.0) -> EvidenceGraph:
    """Two robust members and a sentinel, with fresh (zero) biases."""
    torch.manual_seed(1)
    members = []
    for name, role in {"x": "robust", "y": "robust", "s": "sentinel"}.items():
        arguments = {"classes": CLASSES, "width": 4}
        network = fuse(build("plain", **arguments))
        with torch.no_grad():
            network.get_parameter("head.weight").mul_(head)
        members.append(Member(name, role, network, "plain", arguments))
    squeezers = default_defenses(noise="lead")
    return EvidenceGraph(members, squeezers, copies=COPIES).eval()


@pytest.fixture(scope="module")
def graph() -> EvidenceGraph:
    """Shared and read-only."""
    return make_graph()


@pytest.fixture(scope="module")
def path(graph: EvidenceGraph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """evidence.onnx."""
    path = tmp_path_factory.mktemp("export") / "evidence.onnx"
    export_evidence(graph, path, shape=SHAPE)
    return path


def test_engines_agree(graph: EvidenceGraph, path: Path) -> None:
    """On 96 noisy, smooth and flat images both engines agree to 1e-5, labels and votes exactly."""
    generator = torch.Generator().manual_seed(0)
    images = probe_images(96, SHAPE, generator)
    noise = torch.randn(96, COPIES, *SHAPE, generator=generator)
    parity = evidence_parity(graph, path, images, noise).require()
    assert set(parity.largest) == {*graph.columns, *OUTPUTS[1:]}


def test_very_sure_members_agree(tmp_path: Path) -> None:
    """Where probabilities underflow, both engines apply the same floor to the logarithms."""
    sure = make_graph(head=4000.0)
    export_evidence(sure, tmp_path / "e.onnx", shape=SHAPE)
    images = probe_images(16, SHAPE, torch.Generator().manual_seed(0))
    parity = evidence_parity(sure, tmp_path / "e.onnx", images, torch.zeros(16, COPIES, *SHAPE))
    assert parity.worst < 1e-3


def test_every_weight_is_an_initialiser(graph: EvidenceGraph, path: Path) -> None:
    """State and initialisers have the same names and bits, also for biases that are all zero."""
    stored = initializers(path.read_bytes())
    for name, tensor in graph.state_dict().items():
        assert torch.equal(stored[name], tensor), name


def test_file_is_single_and_says_nothing_about_this_machine(path: Path) -> None:
    """No external data, no functions, no stack traces with paths; standard operators only."""
    model = onnx.load(path)
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    assert all(not tensor.external_data for tensor in model.graph.initializer)
    assert b".py" not in path.read_bytes()
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_batch_is_dynamic(path: Path, count: int) -> None:
    """Any number of images goes through the same file."""
    feeds = {
        "images": np.zeros((count, *SHAPE), np.float32),
        "noise": np.zeros((count, COPIES, *SHAPE), np.float32),
    }
    out = Session(path).run(feeds)
    assert out["evidence"].shape[0] == out["probabilities"].shape[0] == count


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("weight", ["head.bias", "head.weight", "features.0.conv.bias"])
@pytest.mark.parametrize("member", ["x", "y", "s"])
def test_non_finite_member_shows(path: Path, member: str, weight: str, value: float) -> None:
    """A broken member makes evidence and probabilities NaN, in the served file and in torch."""
    name = f"members.{member}.{weight}"
    model = onnx.load(path)
    (tensor,) = (x for x in model.graph.initializer if x.name == name)
    broken = onnx.numpy_helper.to_array(tensor).copy()
    broken.flat[2] = value
    tensor.CopyFrom(onnx.numpy_helper.from_array(broken, name))
    twin = make_graph()
    twin.state_dict()[name].view(-1)[2] = value
    images, noise = torch.rand(2, *SHAPE), torch.zeros(2, COPIES, *SHAPE)
    feeds = {"images": images.numpy(), "noise": noise.numpy()}
    out = Session(model.SerializeToString()).run(feeds, OUTPUTS[:2])
    for result in (*out.values(), *(x.detach().numpy() for x in twin(images, noise))):
        assert np.isnan(result).all()


def test_detector(graph: EvidenceGraph, tmp_path: Path) -> None:
    """The detector's two engines agree, with an upstream and without."""
    detector = Detector(graph.defenses).eval()
    export_detector(detector, tmp_path / "d.onnx", classes=CLASSES)
    answers = torch.softmax(torch.randn(2, 64, CLASSES) * 4, -1)
    evidence = torch.randn(64, len(graph.columns))
    parity = detector_parity(detector, tmp_path / "d.onnx", evidence, *answers)
    assert parity.require().worst < 1e-5
    assert len(parity.largest) == 5 + 6


class Formula(nn.Module):
    """A weight that a good optimiser would fold away, and perhaps one that is never used."""

    def __init__(self, *, unused: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(CLASSES, SHAPE[0]) + 0.5)
        if unused:
            self.spare = nn.Parameter(torch.ones(3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of the mean colour."""
        return images.mean((2, 3)) @ torch.log(self.weight * 2.0).T


def test_a_weight_inside_a_formula_is_stored_as_it_is(tmp_path: Path) -> None:
    """The file holds the weight, not what constant folding would make of it."""
    module = Formula(unused=False)
    export_classifier(module, tmp_path / "c.onnx", shape=SHAPE)
    stored = initializers((tmp_path / "c.onnx").read_bytes())
    assert torch.equal(stored["weight"], module.weight)
    images = torch.rand(4, *SHAPE)
    out = Session(tmp_path / "c.onnx").run({"images": images.numpy()})["logits"]
    assert np.allclose(out, module(images).detach().numpy(), atol=1e-6)


def test_a_lost_weight_is_refused(tmp_path: Path) -> None:
    """When the exporter drops a weight the export fails instead of losing it."""
    with pytest.raises(PackError, match="did not store spare"):
        export_classifier(Formula(unused=True), tmp_path / "c.onnx", shape=SHAPE)


def test_what_torch_cannot_export_is_one_line(tmp_path: Path) -> None:
    """A network whose path depends on its input is refused with its reason."""

    class Branches(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images if images.sum() > 0 else -images

    with pytest.raises(PackError, match=r"^torch cannot export this module: [^\n]+$"):
        export_classifier(Branches(), tmp_path / "c.onnx", shape=SHAPE)


def test_a_non_finite_weight_is_refused(tmp_path: Path) -> None:
    """Training that diverged ends here and not in a pack."""
    broken = make_graph()
    broken.state_dict()["members.y.head.bias"][0] = -math.inf
    with pytest.raises(PackError, match=r"members\.y\.head\.bias is not finite"):
        export_evidence(broken, tmp_path / "e.onnx", shape=SHAPE)


def test_disparity_is_an_error() -> None:
    """A difference above the tolerance, a NaN or a different label raises and names the column."""
    Parity({"a": 1e-7, "noise_flips": 0.0}, True).require()
    for bad in (Parity({"a": 1.0}, True), Parity({"a": math.nan}, True), Parity({"a": 0.0}, False)):
        with pytest.raises(NumericError, match="differ"):
            bad.require()


def test_probe_images_are_images() -> None:
    """Probes lie in [0, 1], and three of four are made of 8-bit values."""
    images = probe_images(8, SHAPE, torch.Generator().manual_seed(0))
    assert images.shape == (8, *SHAPE)
    assert 0 <= images.min() <= images.max() <= 1
    assert torch.equal(torch.round(images[1:4] * 255) / 255, images[1:4])
