"""Graph time against the bare forward passes it contains (goal: at most 1.25 at batch 32).

python tests/bench/graph_cost.py [--batch 32] [--threads 1] [--rounds 15] [--pack models/gtsrb]

Without a pack: four networks as in the gtsrb recipe (90 to 310 thousand parameters) with random
weights. "Bare" is one ONNX Runtime session per member, fed as many images as it sees in the graph.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from guard.defenses.evidence import EvidenceGraph, Member, default_defenses
from guard.defenses.load import load_evidence
from guard.networks import build, fuse
from guard.onnx import Session
from guard.training.export import export_evidence

SHAPE = (3, 32, 32)
NETWORKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "plain": ("robust", "plain", {"width": 32}),
    "broad": ("robust", "broad", {"width": 32, "activation": "silu"}),
    "residual": ("robust", "residual", {"width": 16, "activation": "leaky"}),
    "sentinel": ("sentinel", "plain", {"width": 24}),
}


def random_graph() -> EvidenceGraph:
    """The complete defence over four small networks with random weights."""
    members = []
    for name, (role, architecture, options) in NETWORKS.items():
        arguments = {"classes": 43, "grid": 2, **options}
        network = fuse(build(architecture, **arguments))
        members.append(Member(name, role, network, architecture, arguments))
    return EvidenceGraph(members, default_defenses(noise="lead"))


def passes(graph: EvidenceGraph) -> dict[str, int]:
    """How many images each member sees per image received."""
    seen = dict.fromkeys(graph.members, 1)
    for _, asked in graph.looks:
        seen[asked] += 1
    return seen


def bare_session(network: nn.Module, path: Path, threads: int) -> Session:
    """One member alone: images to logits."""
    torch.onnx.export(
        network.eval(),
        (torch.rand(3, *SHAPE),),
        str(path),
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("N")},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    return Session(path, providers=["CPUExecutionProvider"], threads=threads)


def measure(graph: EvidenceGraph, *, batch: int, threads: int, rounds: int) -> dict[str, float]:
    """Median milliseconds of the graph and of its bare passes, interleaved, and their ratio."""
    images, noise = torch.rand(batch, *SHAPE), torch.randn(batch, graph.copies, *SHAPE)
    feeds = {"images": images.numpy(), "noise": noise.numpy()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "evidence.onnx"
        export_evidence(graph, path, shape=SHAPE)
        whole = Session(path, providers=["CPUExecutionProvider"], threads=threads)
        bare = [
            (bare_session(network, Path(folder) / f"{name}.onnx", threads), views)
            for (name, network), views in zip(
                graph.members.items(), passes(graph).values(), strict=True
            )
        ]
    inputs = [images.repeat(views, 1, 1, 1).numpy() for _, views in bare]

    def run_bare() -> None:
        for (session, _), pixels in zip(bare, inputs, strict=True):
            session.run({"images": pixels})

    times: dict[str, list[float]] = {"graph": [], "bare": []}
    for _ in range(rounds + 2):
        times["graph"].append(_milliseconds(lambda: whole.run(feeds)))
        times["bare"].append(_milliseconds(run_bare))
    result = {name: round(median(values[2:]), 3) for name, values in times.items()}
    ratio = median(g / b for g, b in zip(times["graph"][2:], times["bare"][2:], strict=True))
    return result | {"ratio": round(ratio, 3), "passes": graph.cost(), "batch": batch}


def _milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    """Print the measurement as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--pack", type=Path)
    options = parser.parse_args()
    graph = load_evidence(options.pack) if options.pack else random_graph()
    result = measure(graph, batch=options.batch, threads=options.threads, rounds=options.rounds)
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
