"""It learns: attacks that a pack's detector never saw, through a live gateway, before and after.

python -m tests.learning --pack models/signs [--data signs] [--victim FOLDER] [--only FAMILY ...]
                         [--count 1000] [--labels 600] [--sample-rate 0.25] [--json FILE]

For each family: a gateway in front of a production classifier that is no part of the pack; attacks
of the family that fool it and clean pictures are sent by 20 callers; suspects and a random sample
of all traffic are labelled through the public calls by a reviewer who is right; `guard retrain` and
`guard promote` run; then other pictures, attacked and clean, are sent again.
before, after   share flagged at a budget of 5% among attacks that fool, on pictures never sent
clean           share of clean pictures flagged; corrupted: the worst of six corruptions
known           the largest loss on the attacks that the detector was trained against, in points
--victim: a classifier that `guard train classifier` left; without it one is trained on signs.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from guard.cli.pictures import read_parts
from guard.data import signs
from guard.demo.production import train_production
from guard.evaluation.corruptions import REPORTED
from guard.evaluation.detection import STATIC
from guard.networks import fuse
from guard.training.classifier import load_classifier
from tests.learning.families import FAMILIES
from tests.learning.pictures import Material
from tests.learning.stage import (
    BUDGET,
    MODEL,
    Stage,
    command,
    dumped,
    fingerprint,
    review,
    show,
    staged,
)

HEAD = ("family", "labelled", "before", "after", "clean", "corrupted", "known", "retrain")


def shares(stage: Stage, constants: Mapping[str, Tensor], held: Tensor) -> dict[str, float]:
    """Share flagged, by what is sent; "attack": the family."""
    sent = {**constants, "attack": held}
    return {name: float((stage.p_values(x) <= BUDGET).mean()) for name, x in sent.items() if len(x)}


def learn(
    stage: Stage,
    pack: Path,
    attacks: Tensor,
    clean: Tensor,
    held: Tensor,
    constants: Mapping[str, Tensor],
    labels: int,
) -> dict[str, Any]:
    """One round, from the first picture to the last."""
    before = shares(stage, constants, held)
    traffic = torch.cat([attacks, clean])
    truth = {fingerprint(x): n < len(attacks) for n, x in enumerate(traffic.numpy())}
    order = torch.from_numpy(np.random.default_rng(9).permutation(len(traffic)))
    since = time.time()
    stage.send(traffic[order])
    labelled = review(stage, truth, labels, since=since)
    start, candidate = time.monotonic(), stage.folder / "packs" / "candidate"
    said = command(
        "retrain", "--pack", pack, "--out", candidate, "--at", stage.address,
        "--model", MODEL, "--calibration", stage.folder / f"{MODEL}.npz",
        "--token-file", stage.token_file("trainer", "trainer"), refused=True,
    )  # fmt: skip
    seconds = time.monotonic() - start
    found: dict[str, Any] = {
        "sent": {"attacks": len(attacks), "clean": len(clean)}, "held": len(held),
        "labelled": labelled, "retrain_seconds": seconds, "before": before, "said": said,
        "promoted": candidate.is_dir(),
    }  # fmt: skip
    if not found["promoted"]:
        return found
    submit = ("--at", stage.address, "--token-file", stage.token_file("trainer", "trainer"))
    command("promote", "candidate", "--model", MODEL, "--shadow", *submit)
    approve = ("--at", stage.address, "--token-file", stage.token_file("boss", "approver"))
    command("promote", "candidate", "--model", MODEL, *approve)
    found["after"] = shares(stage, constants, held)
    return found


def row(name: str, found: Mapping[str, Any]) -> list[str]:
    """A line of the table."""
    before, after = found["before"], found.get("after")
    labelled = f"{found['labelled']['adversarial']} + {found['labelled']['benign']}"
    first = [name, labelled, f"{100 * before['attack']:.1f}"]
    if after is None:
        return [*first, "refused", "", "", "", f"{found['retrain_seconds']:.0f} s"]
    corrupted = [max(some[name] for name in REPORTED) for some in (before, after)]
    loss = max(100 * (before[attack] - after[attack]) for attack in STATIC if attack in after)
    return [
        *first, f"{100 * after['attack']:.1f}",
        f"{100 * before['clean']:.1f} to {100 * after['clean']:.1f}",
        f"{100 * corrupted[0]:.1f} to {100 * corrupted[1]:.1f}",
        f"{loss:.1f}", f"{found['retrain_seconds']:.0f} s",
    ]  # fmt: skip


def main() -> None:
    """Round after round, each from the shipped pack."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pack", type=Path, default=Path("models/signs"))
    parser.add_argument("--data", default="signs")
    parser.add_argument("--victim", type=Path)
    parser.add_argument("--only", nargs="*", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--count", type=int, default=1000, help="pictures attacked, of each half")
    parser.add_argument("--labels", type=int, default=600, help="suspects reviewed at most")
    parser.add_argument("--sample-rate", type=float, default=0.25)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    parts = read_parts(chosen.data, None)
    production = victim(chosen.victim)
    material = Material.of(parts)
    constants = material.constants(production)
    results: dict[str, Any] = {}
    if chosen.json and chosen.json.exists():
        results = json.loads(chosen.json.read_text())
    for name in chosen.only:
        if name not in results:
            attacks, clean = material.traffic(production, FAMILIES[name], chosen.count)
            held = material.measured(production, FAMILIES[name], chosen.count)
            with tempfile.TemporaryDirectory(prefix="guard-learning-") as folder:
                rate = chosen.sample_rate
                where = Path(folder)
                with staged(where, chosen.pack, production, parts.calibrate, sample_rate=rate) as s:
                    results[name] = learn(
                        s, chosen.pack, attacks, clean, held, constants, chosen.labels
                    )
            if chosen.json:
                dumped(chosen.json, results)
        print(show([HEAD, row(name, results[name])]).splitlines()[-1], flush=True)
    print(show([HEAD, *(row(name, results[name]) for name in chosen.only)]))


def victim(folder: Path | None) -> nn.Module:
    """The production model, in eval mode."""
    if folder is not None:
        return fuse(load_classifier(folder)).eval()
    return train_production(signs.make(4600, seed=9_000_500), epochs=10, seed=3, say=print)


if __name__ == "__main__":
    main()
