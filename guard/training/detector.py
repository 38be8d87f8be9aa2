"""Trains the detector: evidence on rehearsed attacks and on benign pictures, clean and not.

The attacks are made against the *rehearsal* production model, which is neither a member nor the
model that the measurements attack, on pictures that no classifier was trained on. Corrupted but
benign pictures are negatives, so that a noisy picture is not an alarm by itself.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from guard.attacks import round8
from guard.attacks.cw import cw
from guard.attacks.deepfool import deepfool
from guard.attacks.fgsm import fgsm
from guard.defenses.detector import Detector
from guard.defenses.evidence import EvidenceGraph
from guard.evaluation.corruptions import CORRUPTIONS, corrupt
from guard.evaluation.detection import Attack, attack_production, linf
from guard.evaluation.witness import witness
from guard.rows import Rows, joined
from guard.training.classifier import Log
from guard.training.pictures import Pictures

REHEARSED: Mapping[str, Attack] = {
    "FGSM 2/255": lambda net, x, y, g: fgsm(net, x, y, eps=2 / 255),  # noqa: ARG005
    "FGSM 6/255": lambda net, x, y, g: fgsm(net, x, y, eps=6 / 255),  # noqa: ARG005
    "PGD-20 2/255": linf(2),
    "PGD-20 4/255, margin": linf(4, loss="margin"),
    "PGD-20 8/255": linf(8),
    "DeepFool": lambda net, x, y, g: deepfool(net, x, y),  # noqa: ARG005
    "CW-L2": lambda net, x, y, g: cw(net, x, y, steps=40, searches=3),  # noqa: ARG005
}


def rehearse(
    graph: EvidenceGraph,
    production: nn.Module,
    pictures: Pictures,
    *,
    seed: int = 0,
    log: Log = lambda _line: None,
) -> Rows:
    """Evidence on clean, corrupted and attacked pictures."""
    generator = torch.Generator().manual_seed(seed)
    clean = pictures.pixels(torch.arange(len(pictures)))
    parts: list[Rows] = []
    for name, images in _benign(clean, generator):
        labels = pictures.labels.repeat(len(images) // len(pictures))
        parts.append(
            witness(
                graph, production, images, generator, kind=name, suspicious=False, labels=labels
            )
        )
        log(f"detector: {len(images)} benign pictures, {name}")
    for name, attack in REHEARSED.items():
        won = attack_production(production, attack, clean, pictures.labels, generator)
        fooled, labels = won.images, won.labels
        if len(fooled):
            parts.append(
                witness(
                    graph, production, fooled, generator, kind=name, suspicious=True, labels=labels
                )
            )
        log(f"detector: {len(fooled)} successful attacks, {name}")
    return joined(parts)


def train_detector(
    graph: EvidenceGraph, rows: Rows, *, steps: int = 400, rate: float = 5e-3, seed: int = 0
) -> Detector:
    """Fit both heads by weighted logistic regression with one hidden layer; seconds on a CPU."""
    torch.manual_seed(seed)
    detector = Detector(graph.defenses)
    features = torch.from_numpy(rows.features)
    suspicious = torch.from_numpy(rows.suspicious).float()
    detector.standardize(features)
    optimizer = torch.optim.AdamW(detector.parameters(), rate, weight_decay=1e-2)
    share = suspicious.mean().clamp(0.01, 0.99)
    weight = torch.where(suspicious > 0, 0.5 / share, 0.5 / (1 - share))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / steps)
        scores = detector.alone(features[:, :-1]), detector.upstream(features)
        loss = sum(F.binary_cross_entropy_with_logits(s, suspicious, weight) for s in scores)
        optimizer.zero_grad()
        torch.as_tensor(loss).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return detector.eval().requires_grad_(False)


def _benign(images: Tensor, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    # Clean pictures are what thresholds come from: let them outweigh any one corruption.
    yield "clean", torch.cat([images, images, images])
    for name in CORRUPTIONS:
        yield name, round8(corrupt(name, images, generator=generator))
