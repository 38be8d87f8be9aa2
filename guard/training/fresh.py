"""Fresh attacks for a round of learning, made here and so known for sure.

On pictures that no classifier was trained on, against a classifier that may be attacked: clean and
corrupted pictures come along, so that the detector does not learn to tell the data set. Each kind
is kept when it is done, so that a stopped round goes on.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from guard import rows
from guard.attacks import round8
from guard.attacks.square import square
from guard.defenses.evidence import EvidenceGraph
from guard.durable import write_whole
from guard.errors import InputError
from guard.evaluation.corruptions import CORRUPTIONS, corrupt
from guard.evaluation.detection import Attack, attack_production
from guard.evaluation.witness import witness
from guard.pack import Pack
from guard.rows import Rows, joined
from guard.training.classifier import Log
from guard.training.detector import REHEARSED
from guard.training.pictures import Pictures

FRESH: Mapping[str, Attack] = {
    **REHEARSED,
    "Square 8/255": lambda net, x, y, g: square(net, x, y, eps=8 / 255, queries=500, generator=g),
}


def fresh_rows(
    parent: Pack,
    graph: EvidenceGraph,
    production: nn.Module,
    pictures: Pictures,
    *,
    work: Path,
    victim: str,
    seed: int = 0,
    log: Log = lambda _line: None,
) -> Rows:
    """Evidence on clean, corrupted and attacked pictures; what `work` has is not made again.

    victim: says which classifier `production` is, so that another one's rows are not taken for
    its own. InputError where the pictures are not of the pack's shape.
    """
    shape = tuple(pictures.images.shape[1:])
    if shape != parent.input_shape:
        raise InputError(f"the pictures are {shape}, not {parent.input_shape}")
    clean = pictures.pixels(torch.arange(len(pictures)))
    content = hashlib.sha256(pictures.images.numpy().tobytes())
    content.update(f"{parent.digest} {victim} {seed}".encode())
    stem = content.hexdigest()[:16]
    work.mkdir(parents=True, exist_ok=True)
    parts = []
    for number, (name, make) in enumerate(_kinds(production, clean, pictures.labels)):
        path = work / f"fresh-{stem}-{number}.npz"
        if not path.exists():
            generator = torch.Generator().manual_seed(seed + number)
            images, labels, suspicious = make(generator)
            log(f"fresh: {len(images)} pictures, {name}")
            found = witness(
                graph,
                production,
                images,
                generator,
                kind=f"fresh {name}",
                suspicious=suspicious,
                labels=labels,
            )
            write_whole(path, rows.dump({"fresh": found}))
        parts.append(rows.load(path)["fresh"])
    return joined([part for part in parts if len(part)])


Made = tuple[Tensor, Tensor, bool]  # images, true labels, whether they are attacks


def _kinds(
    production: nn.Module, clean: Tensor, labels: Tensor
) -> Iterator[tuple[str, Callable[[torch.Generator], Made]]]:
    yield "clean", lambda _generator: (clean, labels, False)
    for name in CORRUPTIONS:
        yield name, partial(_corrupted, name, clean, labels)
    for name, attack in FRESH.items():
        yield name, partial(_attacked, production, attack, clean, labels)


def _corrupted(name: str, clean: Tensor, labels: Tensor, generator: torch.Generator) -> Made:
    return round8(corrupt(name, clean, generator=generator)), labels, False


def _attacked(
    production: nn.Module,
    attack: Attack,
    clean: Tensor,
    labels: Tensor,
    generator: torch.Generator,
) -> Made:
    won = attack_production(production, attack, clean, labels, generator)
    return won.images, won.labels, True
