"""What a round learns, and what it costs, for each share of new rows and each leash; and privately.

python -m tests.poisoning.tradeoff --pack models/gtsrb      # after python -m tests.poisoning
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from guard import rows
from guard.defenses.load import load_detector
from guard.pack import Pack
from guard.training.private import Private
from tests.poisoning.__main__ import cached
from tests.poisoning.material import FAMILIES, material
from tests.poisoning.pool import halves, pool
from tests.poisoning.rounds import ATTACKS, play, rates

GRID: tuple[dict[str, Any], ...] = (
    {"share": 0.02, "drift": 0.25},
    {"share": 0.1, "drift": 0.05},
    {"share": 0.1, "drift": 0.1},
    {"share": 0.1, "drift": 0.25},
    {"share": 0.1, "drift": 1.0},
    {"share": 0.2, "drift": 0.25},
    {"share": 0.2, "drift": 0.5},
    {"share": 0.5, "drift": 1.0},
    {"private": Private(1.0)},
    {"private": Private(2.0)},
)


def main(words: list[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.poisoning.tradeoff")
    parser.add_argument("--pack", type=Path, default=Path("models/gtsrb"))
    parser.add_argument("--work", type=Path, default=Path("work/poisoning"))
    asked = parser.parse_args(words)
    torch.set_num_threads(1)
    pack = Pack.load(asked.pack)
    parent, tables = load_detector(pack), rows.load(pack.files[rows.FILE])
    sent = material(pack, "", Path(), cached(pack, asked.work))
    families = " | ".join(f"{family}, before → after" for family in FAMILIES)
    sys.stdout.write(f"| | {families} | hold-out, all attacks | promoted |\n")
    sys.stdout.write("|---|" + "---|" * (len(FAMILIES) + 2) + "\n")
    for how in GRID:
        cells, losses, passed = [], [], 0
        for seed, family in enumerate(FAMILIES):
            first, second = halves(sent, seed)
            done = play(parent, tables, pool(first, family, "nobody", 0, seed), seed=seed, **how)
            before, after = (rates(one, tables, second)[family] for one in (parent, done.child))
            cells.append(f"{100 * before:.0f} → {100 * after:.0f}")
            held = [rates(one, tables, tables["holdout"])[ATTACKS] for one in (parent, done.child)]
            losses.append(held[1] - held[0])
            passed += done.promoted
        sys.stdout.write(
            f"| {_said(how)} | {' | '.join(cells)} | {100 * np.mean(losses):+.1f} "
            f"| {passed} of {len(FAMILIES)} |\n"
        )
        sys.stdout.flush()
    return 0


def _said(how: dict[str, Any]) -> str:
    if "private" in how:
        return f"DP-SGD, noise {how['private'].noise:g}, clip {how['private'].clip:g}"
    return f"share {how['share']:g}, drift {how['drift']:g}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
