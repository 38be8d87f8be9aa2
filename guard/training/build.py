"""Builds a pack from pictures: train, rehearse, calibrate, export, prove, measure, describe.

Every step logs its progress; finished classifiers are kept in the work folder, so that a build
that was stopped goes on where it was.
"""

import datetime
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from guard import calibration, rows
from guard.calibration import Calibration
from guard.data import ImageSet
from guard.defenses.detector import Detector
from guard.defenses.evidence import EvidenceGraph
from guard.evaluation.card import card
from guard.evaluation.holdout import hold_out
from guard.evaluation.measure import Exam, measure
from guard.evaluation.witness import witness
from guard.networks import Network, flops, parameters
from guard.pack import Pack, shipped_digests, sign_pack, write_manifest
from guard.pipeline import Pipeline
from guard.provenance import Making, write_provenance
from guard.rows import Rows
from guard.training.classifier import Log
from guard.training.detector import rehearse, train_detector
from guard.training.ensemble import compose, networks
from guard.training.export import (
    detector_parity,
    evidence_parity,
    export_detector,
    export_evidence,
    probe_images,
)
from guard.training.parts import Parts, pictures
from guard.training.precision import round_half
from guard.training.recipes import PackRecipe, fitted
from guard.verdict import Policy

GOLDEN = 6  # images among the golden vectors
# Above it the export is broken; small nets with large logits reach 2e-5. The card has the figure.
BROKEN = 1e-4


@dataclass(frozen=True)
class Origin:
    """Where a pack's pictures come from, for its card."""

    name: str  # the pack's
    data: str  # one line about the pictures
    command: str  # that builds it again


def build_pack(
    parts: Parts,
    recipe: PackRecipe,
    origin: Origin,
    *,
    out: Path,
    work: Path,
    log: Log,
    half: bool = True,
) -> Pack:
    """Train and write the pack `out`; returns it, loaded and verified.

    The folder is complete only when the manifest is there: it is written last. Big weights are
    rounded to half precision before anything is measured, unless `half` is False.
    """
    started = datetime.datetime.now(datetime.UTC)
    classes = len(parts.fit.classes)
    recipe = fitted(recipe, channels=parts.fit.shape[0])
    fit, held = pictures(parts.fit), pictures(parts.rehearse)
    trained = networks(recipe, fit, held, classes, work=work, log=log)
    graph = compose(recipe, trained, classes)
    if half:
        round_half(graph)
    out.mkdir(parents=True, exist_ok=True)
    (out / "manifest.json").unlink(missing_ok=True)
    parity = _export_graph(graph, parts.fit, out)  # first, because it is what may fail
    log(f"export: ONNX Runtime and torch agree to {parity:.1e}")
    practice = pictures(parts.rehearse, limit=recipe.attacks)
    learned = rehearse(graph, trained["rehearsal"], practice, log=log)
    detector = train_detector(graph, learned)
    log(f"detector: trained on {len(learned)} rows of evidence")
    held_back = evidence_on(graph, trained["referee"], parts.calibrate)
    entries = calibrate(detector, held_back)
    log(f"calibration: {len(held_back)} clean images")
    exam = Exam.set(trained["referee"], parts.test, recipe.examined, log=log)
    tables = {"learn": learned, "calibrate": held_back}
    tables["holdout"] = hold_out(graph, trained["referee"], exam)
    (out / rows.FILE).write_bytes(rows.dump(tables))
    parity = max(parity, _export_detector(graph, detector, parts.fit, out))
    manifest = _manifest(parts, recipe, origin, graph, detector, trained, parity)
    (out / "MODEL_CARD.md").write_text("Being measured.\n")
    _seal(out, manifest, entries)
    pipeline = Pipeline(
        Pack.load(out, check_pin=False),
        policy=Policy(max_false_positive_rate=0.05),
        calibrations=entries,
        secret=b"measurement",
    )
    manifest["measured"] = measure(pipeline, trained, exam, log=log)
    (out / "MODEL_CARD.md").write_text(card(manifest))
    inputs = {f"data:{name}": digest for name, digest in parts.digests().items()}
    told = {"recipe": manifest["recipe"], "parts": parts.counts()}
    write_provenance(out, manifest, Making(origin.command, started, inputs, told))
    _seal(out, manifest, entries)
    return Pack.load(out, check_pin=False) if origin.name in shipped_digests() else sign_pack(out)


def calibrate(detector: Detector, clean: Rows) -> dict[str, Calibration]:
    """Both calibrations from rows on clean pictures: alone, and with the upstream's answers."""
    with torch.no_grad():
        alone, both = detector.scores(torch.from_numpy(clean.features))
    return {
        "alone": Calibration.fit(detector.score_names(False), alone.numpy()),
        "upstream": Calibration.fit(
            detector.score_names(True), both.numpy(), about={"upstream": "the referee model"}
        ),
    }


def evidence_on(
    graph: EvidenceGraph, production: nn.Module, images: ImageSet, *, seed: int = 1
) -> Rows:
    """Rows on clean pictures, with noise drawn from `seed`."""
    clean = pictures(images)
    pixels = clean.pixels(torch.arange(len(clean)))
    generator = torch.Generator().manual_seed(seed)
    return witness(
        graph, production, pixels, generator, kind="clean", suspicious=False, labels=clean.labels
    )


def _seal(out: Path, manifest: Mapping[str, Any], entries: Mapping[str, Calibration]) -> str:
    (out / "calibration.npz").write_bytes(calibration.dump(entries))
    return write_manifest(out, manifest)


def _export_graph(graph: EvidenceGraph, images: ImageSet, out: Path) -> float:
    """Write `evidence.onnx`; returns the largest difference between the engines."""
    shape = images.shape
    export_evidence(graph, out / "evidence.onnx", shape=shape)
    seen, noise = probes(graph, shape)
    return evidence_parity(graph, out / "evidence.onnx", seen, noise).require(BROKEN).worst


def _export_detector(
    graph: EvidenceGraph, detector: Detector, images: ImageSet, out: Path
) -> float:
    """Write `detector.onnx` and the golden vectors; returns the largest difference."""
    shape, classes = images.shape, len(images.classes)
    export_detector(detector, out / "detector.onnx", classes=classes)
    seen, noise = probes(graph, shape)
    with torch.no_grad():
        evidence, probabilities = graph(seen, noise)
    labels = torch.arange(len(seen)) % classes
    answer = torch.nn.functional.one_hot(labels, classes).float()
    judged = detector_parity(detector, out / "detector.onnx", evidence, probabilities, answer)
    judged.require(10 * BROKEN)
    _golden(graph, detector, seen[:GOLDEN], noise[:GOLDEN], labels[:GOLDEN], out)
    return judged.worst


def probes(graph: EvidenceGraph, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Procedural images in 8 bits, and noise for them."""
    generator = torch.Generator().manual_seed(0)
    images = (probe_images(64, shape, generator) * 255).round() / 255
    return images, torch.randn((64, graph.copies, *shape), generator=generator)


@torch.no_grad()
def _golden(
    graph: EvidenceGraph,
    detector: Detector,
    images: Tensor,
    noise: Tensor,
    labels: Tensor,
    out: Path,
) -> None:
    noise = noise.half().float()
    evidence, probabilities = graph(images, noise)
    answer = torch.nn.functional.one_hot(labels, probabilities.shape[1]).float()
    alone, both = detector(evidence, probabilities, answer)
    np.savez_compressed(
        out / "golden.npz",
        images=(images * 255).round().byte().numpy(),
        noise=noise.half().numpy(),
        labels=labels.numpy(),
        probabilities=probabilities.numpy(),
        scores_alone=alone.numpy(),
        scores_upstream=both.numpy(),
    )


def _manifest(
    parts: Parts,
    recipe: PackRecipe,
    origin: Origin,
    graph: EvidenceGraph,
    detector: Detector,
    trained: Mapping[str, Network],
    parity: float,
) -> dict[str, Any]:
    spec = {**graph.spec(), **detector.spec()}
    for member in spec["members"]:
        member["parameters"] = parameters(trained[member["name"]])
    single = {name: flops(net, parts.fit.shape) for name, net in trained.items()}
    spec["evidence"]["flops"] = sum(
        single[name] * (1 + _views(graph, name)) for name in graph.members
    )
    return {
        **spec,
        "name": origin.name,
        "created": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "classes": list(parts.fit.classes),
        "input": {"tensor": "images", "shape": list(parts.fit.shape), "range": [0, 1]},
        "data": {
            "about": origin.data,
            "images": parts.counts(),
            "sha256": parts.digests(),
        },
        "recipe": {**json.loads(json.dumps(asdict(recipe))), "command": origin.command},
        "parity": parity,
        "measured": {},
        "parent": None,
    }


def _views(graph: EvidenceGraph, name: str) -> int:
    """How many views the member answers."""
    return sum(asked == name for _, asked in graph.looks)
