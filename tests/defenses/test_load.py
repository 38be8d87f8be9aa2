"""Torch modules rebuilt from a pack."""

from pathlib import Path

import pytest
import torch

from guard.defenses.detector import Detector
from guard.defenses.evidence import EvidenceGraph
from guard.defenses.load import fill, load_detector, load_evidence, load_member
from guard.errors import PackError

IMAGES = torch.rand(4, 3, 16, 16)


@pytest.mark.parametrize("name", ["a", "b", "c", "s"])
def test_member_is_the_original(folder: Path, graph: EvidenceGraph, name: str) -> None:
    """A member out of the ONNX file has the original's weights and logits, exactly."""
    member = load_member(folder, name)
    assert not member.training
    assert torch.equal(member(IMAGES), graph.members[name](IMAGES))


def test_graph_is_the_original(folder: Path, graph: EvidenceGraph) -> None:
    """The rebuilt graph gives the original's evidence, exactly, and passes gradients."""
    images, noise = IMAGES.clone().requires_grad_(), torch.randn(4, 3, 3, 16, 16)
    evidence, probabilities = load_evidence(folder)(images, noise)
    expected = graph(IMAGES, noise)
    assert torch.equal(evidence, expected[0])
    assert torch.equal(probabilities, expected[1])
    evidence.sum().backward()
    assert images.grad is not None


def test_detector_is_the_original(folder: Path, detector: Detector) -> None:
    """Weights and standardisation of the detector survive the trip."""
    state = load_detector(folder).state_dict()
    for name, tensor in detector.state_dict().items():
        assert torch.equal(state[name], tensor), name


def test_unknown_member_is_named(folder: Path) -> None:
    """The message lists the members there are."""
    with pytest.raises(PackError, match="a, b, c, s"):
        load_member(folder, "z")


def test_missing_and_misfit_weights_are_refused() -> None:
    """A file that does not hold the module's weights is a PackError, not a random network."""
    with pytest.raises(PackError, match="weight"):
        fill(torch.nn.Linear(2, 2), {})
    with pytest.raises(PackError, match="does not fit"):
        fill(torch.nn.Linear(2, 2), {"weight": torch.zeros(3, 3), "bias": torch.zeros(2)})
