"""Rows that callers could send: honest ones, and what somebody who poisons the log would send.

Made from the pack's test pictures, without those of its hold-out, against a production classifier.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from guard import rows
from guard.attacks import round8
from guard.cli.pictures import read_parts
from guard.data import ImageSet
from guard.defenses.evidence import EvidenceGraph
from guard.defenses.load import load_detector, load_evidence
from guard.evaluation.corruptions import CORRUPTIONS, corrupt
from guard.evaluation.detection import STATIC, attack_production
from guard.evaluation.holdout import CLEAN
from guard.evaluation.witness import witness
from guard.networks import fuse
from guard.pack import Pack
from guard.rows import Rows
from guard.training.classifier import load_classifier

TABLE = "material"
KNOWN = "known: "  # kinds: attacks that the detector was trained against
CLONES = "near-duplicates"  # of benign pictures that look suspicious, truthfully benign
FAMILIES = ("spatial", "sticker", "colour")
ATTACKED, CLEANS, CORRUPTED = 900, 2500, 300
ORIGINALS, COPIES = 40, 16


def material(pack: Pack, data: str, victim: Path, cache: Path) -> Rows:
    """Read, or made and kept: minutes on a CPU."""
    if not cache.exists():
        test = read_parts(data, None).test
        production = fuse(load_classifier(victim)).eval()
        cache.parent.mkdir(parents=True, exist_ok=True)
        made = rows.joined(list(_made(pack, production, _outside(test))))
        cache.write_bytes(rows.dump({TABLE: made}))
    return rows.load(cache)[TABLE]


def _outside(test: ImageSet) -> ImageSet:
    """The pictures that no row of the hold-out is of; the order is that of `Exam.set`."""
    return test.subset(np.random.default_rng(0).permutation(len(test))[CLEAN:])


def _made(pack: Pack, production: nn.Module, test: ImageSet) -> Iterator[Rows]:
    from tests.learning import families

    graph, generator = load_evidence(pack), torch.Generator().manual_seed(0)
    images, labels = torch.from_numpy(test.pixels()), torch.from_numpy(test.labels)
    first, clean = images[:ATTACKED], images[ATTACKED : ATTACKED + CLEANS]
    attacks = {name: families.FAMILIES[name] for name in FAMILIES}
    attacks |= {KNOWN + name: attack for name, attack in STATIC.items()}
    for name, attack in attacks.items():
        some = slice(None) if name in FAMILIES else slice(ATTACKED // 3)
        won = attack_production(production, attack, first[some], labels[:ATTACKED][some], generator)
        sys.stderr.write(f"{name}: {len(won.images)} fool the classifier\n")
        yield witness(graph, production, won.images, generator, kind=name, suspicious=True)
    benign = {"clean": clean}
    for name in CORRUPTIONS:
        benign[name] = round8(corrupt(name, clean[:CORRUPTED], generator=generator))
    found = {
        name: witness(graph, production, some, generator, kind=name, suspicious=False)
        for name, some in benign.items()
    }
    yield from found.values()
    worst = _worst(pack, torch.cat(list(benign.values())), rows.joined(list(found.values())))
    yield _clones(graph, production, worst, generator)


def _worst(pack: Pack, images: Tensor, seen: Rows) -> Tensor:
    """The benign pictures that look most suspicious to the detector that is there."""
    with torch.no_grad():
        scores = load_detector(pack).scores(torch.from_numpy(seen.features))[1][:, -1]
    return images[scores.argsort(descending=True)[:ORIGINALS]]


def _clones(
    graph: EvidenceGraph, production: nn.Module, worst: Tensor, generator: torch.Generator
) -> Rows:
    """Copies with pixels changed by up to 2/255 and a little more or less light."""
    images = worst.repeat(COPIES, 1, 1, 1)
    light = 1 + 0.04 * torch.randn((len(images), 1, 1, 1), generator=generator)
    noise = torch.randint(-2, 3, images.shape, generator=generator) / 255
    moved = round8((images * light + noise).clamp(0, 1))
    return witness(graph, production, moved, generator, kind=CLONES, suspicious=False)
