"""How soon a caller who copies or attacks is told from the others, and how often an honest one is.

python -m tests.bench.callers --data FOLDER --strange FOLDER --victim FOLDER [--pack models/gtsrb]
                              [--callers 200] [--honest 20000] [--pictures 1000] [--json FILE]

Each of --callers sends pictures of one kind, drawn from --pictures of them: of the task (honest
heavy users, or copying with pictures of the task), of something else (--strange), uniform noise,
half of one and half of the other, or attacks. Queries until the alert: median, 95th percentile.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from guard import calibration
from guard.cli.pictures import read_images
from guard.evaluation.detection import STATIC, attack_production
from guard.networks import fuse
from guard.pipeline import Pipeline
from guard.traffic.callers import Callers
from guard.training.classifier import load_classifier
from guard.training.parts import divide, pictures
from tests.bench.drift import known

Floats = NDArray[np.float32]
RISK, TOLERANCE, MOST, STEP = 0.001, 0.25, 1000, 16


def kinds(options: argparse.Namespace) -> dict[str, Floats]:
    """p-values of every kind of picture, at most --pictures of each; the task's own first."""
    data = [read_images(options.data, split, limit=None, seed=0) for split in ("train", "test")]
    test = pictures(divide(*data).test, limit=options.pictures)
    own = test.pixels(torch.arange(len(test)))
    foreign = read_images(options.strange, "train", limit=len(own), seed=0)
    turned = np.ascontiguousarray(foreign.images.transpose(0, 3, 1, 2))
    other = torch.from_numpy(turned).float() / 255
    noise = torch.rand(own.shape, generator=torch.Generator().manual_seed(0))
    victim = fuse(load_classifier(options.victim)).eval()
    random = torch.Generator().manual_seed(0)
    attack = STATIC["PGD-20 4/255"]
    few = slice(0, min(len(own), 400))
    struck = attack_production(victim, attack, own[few], test.labels[few], random)
    groups = {
        "the task's own": own,
        "something else": other,
        "uniform noise": noise,
        "half and half": (own + other) / 2,
        "PGD-20 4/255": struck.images,
    }
    pipeline = Pipeline.load(options.pack, secret=b"drift" * 8)
    return {name: known(pipeline, victim, images).p_values for name, images in groups.items()}


def alerts(pack: Path, values: Floats, callers: int, most: int) -> list[float]:
    """Queries until the alert of each caller, infinite where there is none within `most`."""
    entry = calibration.load(pack / "calibration.npz")["upstream"]
    found = []
    for seed in range(callers):
        random = np.random.default_rng(seed)
        watch = Callers(entry, most=MOST, risk=RISK, tolerance=TOLERANCE)
        count = 0
        while count < most and not watch.see("one", random.choice(values, STEP)):
            count += STEP
        found.append(count + STEP if count < most else np.inf)
    return found


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--strange", required=True)
    parser.add_argument("--victim", type=Path, required=True)
    parser.add_argument("--pack", type=Path, default=Path("models/gtsrb"))
    parser.add_argument("--callers", type=int, default=200)
    parser.add_argument("--honest", type=int, default=20_000)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    report: dict[str, Any] = {}
    print("| pictures | p <= 0.05 | alerts | queries, median | 95% |\n|---|---|---|---|---|")
    for name, values in reversed(kinds(options).items()):
        found = alerts(options.pack, values, options.callers, options.honest)
        middle, late = np.quantile(found, [0.5, 0.95], method="higher")
        told = int(np.isfinite(found).sum())
        report[name] = {"alerts": told, "median": float(middle), "95%": float(late)}
        print(
            f"| {name} | {100 * (values <= 0.05).mean():.0f}% | {told} of {len(found)} | "
            f"{middle:,.0f} | {late:,.0f} |",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
