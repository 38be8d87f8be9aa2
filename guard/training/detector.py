"""Trains the detector: evidence on rehearsed attacks and on benign pictures, clean and not.

The attacks are made against the *rehearsal* production model, which is neither a member nor the
model that the measurements attack, on pictures that no classifier was trained on. Corrupted but
benign pictures are negatives, so that a noisy picture is not an alarm by itself.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Rows:
    """Labelled evidence on R images: what the detector learns from."""

    evidence: Tensor  # (R, E)
    probabilities: Tensor  # (R, K), the robust ensemble's
    upstream: Tensor  # (R, K), the production model's
    suspicious: Tensor  # (R,) float: 1 for a successful attack, 0 for a benign picture

    def __len__(self) -> int:
        return len(self.suspicious)


@torch.no_grad()
def witness(
    graph: EvidenceGraph,
    production: nn.Module,
    images: Tensor,
    generator: torch.Generator,
    *,
    suspicious: bool,
    batch: int = 128,
) -> Rows:
    """Evidence on images (N, C, H, W), with fresh noise and the production model's answer."""
    parts = []
    for chunk in torch.split(images, batch):
        noise = torch.randn(
            (len(chunk), graph.copies, *chunk.shape[1:]), generator=generator, dtype=chunk.dtype
        )
        parts.append((*graph(chunk, noise), production(chunk).softmax(1)))
    evidence, probabilities, upstream = (torch.cat(column) for column in zip(*parts, strict=True))
    return Rows(evidence, probabilities, upstream, torch.full((len(images),), float(suspicious)))


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
        parts.append(witness(graph, production, images, generator, suspicious=False))
        log(f"detector: {len(images)} benign pictures, {name}")
    for name, attack in REHEARSED.items():
        fooled = attack_production(production, attack, clean, pictures.labels, generator).images
        if len(fooled):
            parts.append(witness(graph, production, fooled, generator, suspicious=True))
        log(f"detector: {len(fooled)} successful attacks, {name}")
    return _join(parts)


def train_detector(
    graph: EvidenceGraph, rows: Rows, *, steps: int = 400, rate: float = 5e-3, seed: int = 0
) -> Detector:
    """Fit both heads by weighted logistic regression with one hidden layer; seconds on a CPU."""
    torch.manual_seed(seed)
    detector = Detector(graph.defenses)
    detector.standardize(detector.features(rows.evidence, rows.probabilities, rows.upstream))
    optimizer = torch.optim.AdamW(detector.parameters(), rate, weight_decay=1e-2)
    share = rows.suspicious.mean().clamp(0.01, 0.99)
    weight = torch.where(rows.suspicious > 0, 0.5 / share, 0.5 / (1 - share))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / steps)
        alone, both = detector(rows.evidence, rows.probabilities, rows.upstream)
        loss = sum(
            F.binary_cross_entropy_with_logits(scores[:, -1], rows.suspicious, weight)
            for scores in (alone, both)
        )
        optimizer.zero_grad()
        torch.as_tensor(loss).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return detector.eval().requires_grad_(False)


def _benign(images: Tensor, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    # Clean pictures are what thresholds come from: let them outweigh any one corruption.
    yield "clean", torch.cat([images, images, images])
    for name in CORRUPTIONS:
        yield name, round8(corrupt(name, images, generator=generator))


def _join(parts: list[Rows]) -> Rows:
    return Rows(
        *(
            torch.cat([getattr(part, field) for part in parts])
            for field in ("evidence", "probabilities", "upstream", "suspicious")
        )
    )
