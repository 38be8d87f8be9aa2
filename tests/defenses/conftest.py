"""A tiny but complete defence: four small networks with random weights, confident answers."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from guard.defenses.detector import Detector
from guard.defenses.evidence import EvidenceGraph, Member, default_defenses
from guard.networks import build, fuse
from guard.onnx import Session
from guard.pack import REQUIRED, sign_pack, write_manifest
from guard.training.export import export_detector, export_evidence

CLASSES, SHAPE = 5, (3, 16, 16)
ROLES = {
    "a": ("robust", "plain"),
    "b": ("robust", "residual"),
    "c": ("robust", "broad"),
    "s": ("sentinel", "plain"),
}


def sharpen(network: nn.Module) -> nn.Module:
    """Random biases and large last weights, so that answers vary from image to image."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
        network.get_parameter("head.weight").mul_(40)
    return network


def make_graph(seed: int = 0) -> EvidenceGraph:
    """The complete defence over networks of a few thousand parameters."""
    torch.manual_seed(seed)
    members = []
    for name, (role, architecture) in ROLES.items():
        arguments = {"classes": CLASSES, "width": 4}
        network = sharpen(fuse(build(architecture, **arguments)))
        members.append(Member(name, role, network, architecture, arguments))
    return EvidenceGraph(members, default_defenses(noise="lead"), copies=3).eval()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors: threads would cost more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def graph() -> EvidenceGraph:
    """Shared and read-only."""
    return make_graph()


@pytest.fixture(scope="session")
def detector(graph: EvidenceGraph) -> Detector:
    """A detector with random weights and statistics that are not the defaults."""
    torch.manual_seed(7)
    detector = Detector(graph.defenses).eval()
    detector.standardize(torch.randn(64, len(graph.columns) + 1) * 2 + 1)
    return detector


@pytest.fixture(scope="session")
def folder(
    graph: EvidenceGraph, detector: Detector, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A pack that verifies; only its ONNX files and manifest mean anything."""
    folder = tmp_path_factory.mktemp("packs") / "tiny"
    folder.mkdir()
    for name in REQUIRED:
        (folder / name).write_bytes(b"")
    for name in ("calibration.npz", "golden.npz"):
        np.savez(folder / name)
    export_evidence(graph, folder / "evidence.onnx", shape=SHAPE)
    export_detector(detector, folder / "detector.onnx", classes=CLASSES)
    manifest = {
        "name": "tiny",
        "classes": [str(k) for k in range(CLASSES)],
        "input": {"shape": list(SHAPE)},
        **json.loads(json.dumps(graph.spec() | detector.spec())),
    }
    write_manifest(folder, manifest)
    sign_pack(folder)
    return folder


@pytest.fixture(scope="session")
def evidence_session(folder: Path) -> Session:
    """evidence.onnx in ONNX Runtime."""
    return Session(folder / "evidence.onnx", threads=1)


@pytest.fixture(scope="session")
def detector_session(folder: Path) -> Session:
    """detector.onnx in ONNX Runtime."""
    return Session(folder / "detector.onnx", threads=1)
