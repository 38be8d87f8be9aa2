"""It learns: attacks that a pack's detector never saw, through a live gateway, before and after.

python -m tests.learning --pack models/signs [--data signs] [--victim FOLDER] [--only FAMILY ...]
                         [--rounds 2] [--count 1000] [--labels 600] [--sample-rate 0.25]
                         [--json FILE]

For each family: a gateway in front of a production classifier that is no part of the pack; attacks
of the family that fool it and clean pictures are sent by 20 callers; suspects and a random sample
of all traffic are labelled through the public calls by a reviewer who is right; `guard retrain` and
`guard promote` run; then other pictures, attacked and clean, are sent again. The next round goes on
from there, with pictures that were not attacked before.
before, after   share flagged at a budget of 5% among attacks that fool, on pictures never sent
clean           share of clean pictures flagged; corrupted: the mean over six corruptions
known           the largest loss on the attacks that the detector was trained against, in points
--victim: a classifier that `guard train classifier` left; without it one is trained on signs.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class School:
    """What does not change from round to round."""

    stage: Stage
    held: Tensor
    constants: Mapping[str, Tensor]
    labels: int

    def shares(self) -> dict[str, float]:
        """Share flagged, by what is sent; "attack": the family."""
        return shares(self.stage, self.constants, self.held)


def learn(
    school: School, pack: Path, attacks: Tensor, clean: Tensor, number: int
) -> dict[str, Any]:
    """One round, from the first picture to the last; the next one's pack is `candidate`."""
    stage = school.stage
    traffic = torch.cat([attacks, clean])
    truth = {fingerprint(x): n < len(attacks) for n, x in enumerate(traffic.numpy())}
    order = torch.from_numpy(np.random.default_rng(9).permutation(len(traffic)))
    since = time.time()
    stage.send(traffic[order])
    labelled = review(stage, truth, school.labels, since=since)
    start, name = time.monotonic(), f"candidate-{number}"
    candidate = stage.folder / "packs" / name
    own = () if number else ("--calibration", stage.folder / f"{MODEL}.npz")
    said = command(
        "retrain", "--pack", pack, "--out", candidate, "--at", stage.address,
        "--model", MODEL, *own,
        "--token-file", stage.token_file("trainer", "trainer"), refused=True,
    )  # fmt: skip
    found: dict[str, Any] = {
        "sent": {"attacks": len(attacks), "clean": len(clean)}, "labelled": labelled,
        "retrain_seconds": time.monotonic() - start, "said": said,
        "promoted": candidate.is_dir(), "candidate": str(candidate),
    }  # fmt: skip
    if found["promoted"]:
        submit = ("--at", stage.address, "--token-file", stage.token_file("trainer", "trainer"))
        command("promote", name, "--model", MODEL, "--shadow", *submit)
        approve = ("--at", stage.address, "--token-file", stage.token_file("boss", "approver"))
        command("promote", name, "--model", MODEL, *approve)
        found["after"] = school.shares()
    return found


def term(school: School, pack: Path, sent: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """Rounds one after the other, each on the pack that the last one promoted."""
    found: dict[str, Any] = {"held": len(school.held), "before": school.shares(), "rounds": []}
    for number, (attacks, clean) in enumerate(sent):
        done = learn(school, pack, attacks, clean, number)
        found["rounds"].append(done)
        pack = Path(done["candidate"]) if done["promoted"] else pack
    return found


def row(name: str, found: Mapping[str, Any]) -> list[str]:
    """A line of the table: the first round's start and the last round's end."""
    before, rounds = found["before"], found["rounds"]
    said = [sum(one["labelled"][label] for one in rounds) for label in ("adversarial", "benign")]
    after = [
        f"{100 * one['after']['attack']:.1f}" if "after" in one else "refused" for one in rounds
    ]
    first = [name, f"{said[0]} + {said[1]}", f"{100 * before['attack']:.1f}", ", ".join(after)]
    seconds = f"{max(one['retrain_seconds'] for one in rounds):.0f} s"
    ends = [one["after"] for one in rounds if "after" in one]
    if not ends:
        return [*first, "", "", "", seconds]
    corrupted = [np.mean([some[name] for name in REPORTED]) for some in (before, ends[-1])]
    loss = max(100 * (before[attack] - ends[-1][attack]) for attack in STATIC if attack in before)
    return [
        *first,
        f"{100 * before['clean']:.1f} to {100 * ends[-1]['clean']:.1f}",
        f"{100 * corrupted[0]:.1f} to {100 * corrupted[1]:.1f}",
        f"{loss:.1f}", seconds,
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
    parser.add_argument("--rounds", type=int, default=2)
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
            held = material.measured(production, FAMILIES[name], chosen.count)
            with tempfile.TemporaryDirectory(prefix="guard-learning-") as folder:
                rate = chosen.sample_rate
                where = Path(folder)
                with staged(where, chosen.pack, production, parts.calibrate, sample_rate=rate) as s:
                    school = School(s, held, constants, chosen.labels)
                    sent = (
                        material.traffic(production, FAMILIES[name], chosen.count, number)
                        for number in range(chosen.rounds)
                    )
                    results[name] = term(school, chosen.pack, sent)
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
