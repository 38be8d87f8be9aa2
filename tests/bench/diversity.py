"""What training members together is worth: their mean under attack, with and without diversity.

python tests/bench/diversity.py [--data signs] [--limit 4000] [--members 3] [--width 8] [--epochs 8]
                                [--more 4] [--count 300] [--hard 100] [--eps 8/255] [--seed 0]
                                [--only ARM ...] [--work work/diversity] [--threads 1]

Members of one shape and different seeds are trained alone (N-FGSM), then for `--more` epochs
further in one of several ways, from the same weights and on the same pictures: alone, together on
examples against their mean, and so with ADP or GAL. Attacked is the mean of their probabilities.
Everything is kept in `--work`; a stopped run goes on. Equal epochs are not equal time: GAL takes
the gradient of a gradient, which the column of seconds shows.
"""

import argparse
import csv
import json
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guard.cli.pictures import read_parts
from guard.evaluation.robustness import Averaged
from guard.evaluation.standing import Column, stand
from guard.evaluation.transfer import transfer
from guard.networks import fuse
from guard.threat import ThreatModel
from guard.training.augment import Augment
from guard.training.classifier import load_classifier
from guard.training.diversity import apart
from guard.training.ensemble import classifier
from guard.training.ladder import SINGLE
from guard.training.members import ensemble, order
from guard.training.parts import pictures
from guard.training.pictures import Pictures

ARMS: dict[str, dict[str, Any]] = {
    "alone": {"against": "own"},
    "together": {},
    "adp": {"diversity": "adp"},
    "gal": {"diversity": "gal"},
}
SIGNS = Augment(rotation=5, zoom=0.05, shift=0.05, light=0.2)


def note(line: str) -> None:
    """Progress, on the error stream."""
    print(line, file=sys.stderr, flush=True)


def trained(asked: argparse.Namespace, parts: Any) -> list[Path]:
    """Folders of the members, each trained alone."""
    changes = {"augment": SIGNS, "grid": 4} if asked.data == "signs" else {}
    fit, held, classes = pictures(parts.fit), pictures(parts.rehearse), len(parts.fit.classes)
    work, eps = asked.work / "start", float(Fraction(asked.eps))
    for number in range(asked.members):
        recipe = replace(
            SINGLE, architecture=asked.architecture, width=asked.width, epochs=asked.epochs,
            batch=64, peak_rate=0.1, ema=0.98, eps=eps, bf16=False, channels=parts.fit.shape[0],
            seed=asked.seed + number, **changes,
        )  # fmt: skip
        classifier(f"m{number}", recipe, fit, held, classes, work=work, log=note)
    return [work / f"m{number}" for number in range(asked.members)]


def measured(
    folders: list[Path], images: Tensor, labels: Tensor, asked: argparse.Namespace
) -> dict[str, Any]:
    """The mean of the classifiers in the folders, and how they stand to each other."""
    threat = ThreatModel("linf", float(Fraction(asked.eps)))
    members = {folder.name: fuse(load_classifier(folder)) for folder in folders}
    mean = Averaged(list(members.values()))
    columns = [Column("clean", len(labels), threat), Column("cw-20", asked.count, threat)]
    columns += [Column("apgd", asked.hard, threat)] * bool(asked.hard)
    found: dict[str, Any] = {}
    for column in columns:
        cell = stand(mean, images, labels, column)
        found[column.name] = [cell.share, *cell.interval, cell.count]
    members_alone = [stand(one, images, labels, columns[1]).share for one in members.values()]
    found["best member cw-20"] = max(members_alone)
    some = images[: asked.count], labels[: asked.count]
    crossed = transfer(members, *some, columns[1].attack(0), title="cw-20")
    found |= {"own": crossed.alone, "others'": crossed.across}
    sample = Pictures((images[:500] * 255).round().byte(), labels[:500])
    return found | apart(list(members.values()), sample)


def seconds(folder: Path) -> float:
    """What the arm's epochs took, by its log."""
    if not (folder / "log.csv").exists():
        return 0.0
    with (folder / "log.csv").open(newline="") as file:
        return sum(float(row["seconds"]) for row in csv.DictReader(file))


def line(name: str, row: dict[str, Any]) -> str:
    """One row of the table."""
    cells = []
    for value in row.values():
        if isinstance(value, list):
            share, low, high, _ = value
            cells.append(f"{100 * share:.1f} ({100 * low:.1f} to {100 * high:.1f})")
        else:
            cells.append(f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}")
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Train every arm that is not there yet, measure, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for name, default in (("data", "signs"), ("eps", "8/255"), ("architecture", "plain")):
        parser.add_argument(f"--{name}", default=default)
    numbers = {"limit": 4000, "members": 3, "width": 8, "epochs": 8, "more": 4, "count": 300}
    for name, number in {**numbers, "hard": 100, "seed": 0, "threads": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--only", nargs="+", choices=["start", *ARMS], default=["start", *ARMS])
    parser.add_argument("--work", type=Path, default=Path("work/diversity"))
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    parts = read_parts(asked.data, asked.limit)
    folders = trained(asked, parts)
    fit, held, classes = pictures(parts.fit), pictures(parts.rehearse), len(parts.fit.classes)
    images, labels = pictures(parts.test).shuffled(0)
    kept = asked.work / "rows.json"
    for arm in asked.only:
        out = asked.work / arm
        if arm != "start":
            together = order(folders[0], epochs=asked.more, **ARMS[arm])
            note(f"{arm}:")
            ensemble(together, folders, fit, held, classes, out=out, log=note)
        at = [out / folder.name for folder in folders]
        row = {**measured(at, images, labels, asked), "seconds": seconds(out)}
        note(line(arm, row))
        rows: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
        kept.write_text(json.dumps({**rows, arm: row}, indent=1))
    rows = {name: row for name, row in json.loads(kept.read_text()).items() if name in asked.only}
    head = list(next(iter(rows.values())))
    print(f"| members of {asked.data}, eps {asked.eps} | {' | '.join(head)} |")
    print(f"| --- |{' ---: |' * len(head)}")
    for name, row in rows.items():
        print(line(name, row))


if __name__ == "__main__":
    main()
