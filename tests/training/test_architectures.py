"""Every architecture goes into a pack and comes out of it again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from guard.defenses.ensemble import Disagreement
from guard.defenses.evidence import EvidenceGraph, Member
from guard.defenses.load import fill, initializers, weights
from guard.defenses.sentinel import Sentinel
from guard.networks import build, fuse
from guard.onnx import Session
from guard.training.export import evidence_parity, export_evidence, probe_images
from guard.training.precision import round_half

SHAPE, CLASSES, COPIES = (3, 16, 16), 5, 1
# Norms that fold, norms that stay, group norm, layer norm and attention, a net not of our making.
MEMBERS: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet": ("resnet", {"depth": 8, "width": 4, "activation": "gelu", "dropout": 0.1}),
    "grouped": ("resnet", {"depth": 8, "width": 4, "norm": "group", "normalize": "contrast"}),
    "preact": ("preact", {"depth": 8, "width": 4, "activation": "silu"}),
    "wide": ("wide", {"depth": 10, "widen": 2, "width": 4, "activation": "leaky"}),
    "vit": ("vit", {"size": 16, "depth": 1, "dim": 96, "heads": 2}),
    "vision": ("torchvision", {"model": "shufflenet_v2_x0_5"}),
}


@pytest.fixture(scope="module")
def graph() -> EvidenceGraph:
    """A defence of all of them, with lively statistics and biases, its big weights rounded."""
    torch.manual_seed(0)
    members = []
    for name, (architecture, options) in MEMBERS.items():
        arguments = {"classes": CLASSES, **options}
        network = build(architecture, **arguments)
        with torch.no_grad():
            for key, parameter in network.named_parameters():
                if key.endswith("bias"):
                    parameter.normal_(0, 0.1)
            network.train()
            network(torch.rand(16, *SHAPE))  # gives the running statistics something to fold
            network.head.weight.mul_(10)
        role = "sentinel" if name == "grouped" else "robust"
        members.append(Member(name, role, fuse(network), architecture, arguments))
    graph = EvidenceGraph(members, [Disagreement(), Sentinel()], copies=COPIES).eval()
    round_half(graph)
    return graph


@pytest.fixture(scope="module")
def path(graph: EvidenceGraph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its evidence.onnx."""
    path = tmp_path_factory.mktemp("architectures") / "evidence.onnx"
    export_evidence(graph, path, shape=SHAPE)
    return path


def test_engines_agree_on_every_architecture(graph: EvidenceGraph, path: Path) -> None:
    """Both engines agree to 1e-5 on noisy, smooth and flat images, labels and votes exactly."""
    generator = torch.Generator().manual_seed(0)
    images = probe_images(24, SHAPE, generator)
    noise = torch.randn(24, COPIES, *SHAPE, generator=generator)
    parity = evidence_parity(graph, path, images, noise).require()
    assert set(parity.largest) == {*graph.columns, "probabilities", "members"}


def test_every_architecture_is_rebuilt(graph: EvidenceGraph, path: Path) -> None:
    """From the spec and the file's initialisers alone come the same members, bit for bit."""
    rebuilt = EvidenceGraph.from_spec(graph.spec())
    fill(rebuilt, initializers(path.read_bytes()))
    theirs = weights(rebuilt)
    assert all(torch.equal(theirs[name], value) for name, value in weights(graph).items())
    images = torch.rand(3, *SHAPE)
    for name, member in graph.members.items():
        assert torch.equal(rebuilt.members[name](images), member(images)), name


@pytest.mark.parametrize("count", [1, 5])
def test_batch_is_dynamic_for_every_architecture(path: Path, count: int) -> None:
    """Any number of images goes through the same file, and none is lost."""
    feeds = {
        "images": np.full((count, *SHAPE), 0.25, np.float32),
        "noise": np.zeros((count, COPIES, *SHAPE), np.float32),
    }
    out = Session(path, threads=1).run(feeds)
    assert out["probabilities"].shape == (count, CLASSES)
    assert np.abs(out["probabilities"] - out["probabilities"][0]).max() < 1e-5
    assert np.isfinite(out["evidence"]).all()
