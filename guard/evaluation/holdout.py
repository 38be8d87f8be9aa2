"""The trusted hold-out: rows that no detector learns from and that callers can never add to.

Made once, with the pack, from its test pictures: clean, corrupted and attacked. A candidate is
compared with its parent on exactly these rows, so they must stay what they were.
"""

import torch
from torch import nn

from guard.attacks import round8
from guard.defenses.evidence import EvidenceGraph
from guard.evaluation.corruptions import REPORTED
from guard.evaluation.measure import Exam
from guard.evaluation.witness import witness
from guard.rows import Rows, joined

CLEAN, CORRUPTED = 2000, 500  # pictures at most


def hold_out(graph: EvidenceGraph, referee: nn.Module, exam: Exam, *, seed: int = 3) -> Rows:
    """Rows on an exam, answered by the production model it was made against."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = exam.images[:CLEAN], exam.labels[:CLEAN]
    benign = {"clean": images}
    for name, corruption in REPORTED.items():
        picked = torch.Generator().manual_seed(seed)
        benign[name] = round8(corruption(images[:CORRUPTED], picked))
    parts = [
        witness(
            graph, referee, some, generator, kind=name, suspicious=False, labels=labels[: len(some)]
        )
        for name, some in benign.items()
    ]
    parts += [
        witness(
            graph, referee, won.images, generator, kind=name, suspicious=True, labels=won.labels
        )
        for name, won in exam.struck.items()
        if len(won.images)
    ]
    return joined(parts)
