"""Detectors that are worse in just one place, and rows to see it on."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from guard.calibration import Calibration
from guard.evaluation.gate import Side
from guard.rows import Rows, joined

CLASSES = ("stop", "yield", "speed")
COLUMNS = ("signal", "number", "upstream_odds")  # `number` tells a toy detector which row it is
BENIGN = {"clean": 1500, "blur": 300, "JPEG": 300}
ATTACKS = {"FGSM": 150, "PGD": 300, "CW": 150}
Hole = Callable[[Rows], NDArray[np.bool_]]


class Toy:
    """Scores are the signal, for both heads; in a hole an attack is missed, or an alarm is raised.

    The rows of the hole are known by their second feature, which no real detector has.
    """

    columns = COLUMNS[:-1]

    def __init__(self, hole: NDArray[np.float32] | None = None, depth: float = 0.0) -> None:
        self.hole, self.depth = set([] if hole is None else hole.tolist()), depth

    def score_names(self, upstream: bool) -> tuple[str, ...]:
        """As a detector's."""
        return ("toy", "upstream", "detector") if upstream else ("toy", "detector")

    def scores(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(R, 2) and (R, 3)."""
        fallen = torch.tensor([number.item() in self.hole for number in features[:, 1]])
        signal = torch.where(fallen, features[:, 0] + self.depth, features[:, 0])
        return torch.stack([signal] * 2, 1), torch.stack([signal] * 3, 1)


def holdout(seed: int = 0) -> Rows:
    """Rows of every kind and class: benign around 0, attacks around 3."""
    random = np.random.default_rng(seed)
    parts, number = [], 0
    for name, count in (BENIGN | ATTACKS).items():
        attack = name in ATTACKS
        features = np.zeros((count, 3), np.float32)
        features[:, 0] = random.normal(3.0 * attack, 1, count)
        features[:, 1] = np.arange(number, number + count)
        label = np.arange(count) % len(CLASSES)
        parts.append(Rows.of(name, COLUMNS, features, suspicious=attack, label=label))
        number += count
    return joined(parts)


def side(detector: Toy | None = None, *, images: int = 3000, seed: int = 9) -> Side:
    """A toy detector, calibrated on `images` benign rows."""
    detector = detector or Toy()
    signal = np.random.default_rng(seed).normal(size=images).astype(np.float32)
    entries = {
        head: Calibration.fit(names, np.stack([signal] * len(names), 1))
        for head in ("alone", "upstream")
        for names in [detector.score_names(head == "upstream")]
    }
    return Side(detector, entries)


def broken(rows: Rows, hole: Hole, *, share: float = 0.5) -> Side:
    """A side that gets `share` of the rows in the hole wrong, and is the same everywhere else."""
    chosen = np.flatnonzero(hole(rows))
    lost = chosen[np.random.default_rng(1).random(len(chosen)) < share]
    depth = -10.0 if rows.suspicious[chosen[0]] else 10.0
    return side(Toy(rows.features[lost, 1], depth))
