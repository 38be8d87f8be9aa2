"""The test for drift: how often it is wrong, and how soon it is right.

python -m tests.bench.drift --data FOLDER [--pack models/gtsrb] [--victim FOLDER] [--runs 200]
                            [--stream 1000000] [--repeats 20] [--cache FILE] [--json FILE]

wrong   `--runs` streams of `--stream` p-values that follow their calibration, which is drawn anew
        for each; a tenth as long against exact uniformity, as one would naively test
clean   20 streams of the pack's own test pictures, answered by the classifier in --victim
right   10,000 of them, then a change: pictures until the alarm
        (median, 90th percentile of --repeats), and what is said to have happened 2,000 later
video   clean pictures that each stay for 30 frames, --repeats streams of 100,000 frames: alarms
        when every frame is looked at, and when one in 30 and one in 100 is
"""

import argparse
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from guard import calibration
from guard.attacks import round8
from guard.cli.pictures import read_images
from guard.evaluation.corruptions import brightness, gaussian_blur, gaussian_noise, jpeg
from guard.evaluation.detection import STATIC, answers, attack_production
from guard.networks import fuse
from guard.pipeline import Pipeline
from guard.traffic.drift import LEVELS, Band, Drift, band
from guard.traffic.pictures import numbers
from guard.traffic.shift import TrafficShift
from guard.training.classifier import load_classifier
from guard.training.parts import divide, pictures

Floats = NDArray[np.float32]
RISK, TOLERANCE = 0.001, 0.25
BEFORE, AFTER, MOST = 10_000, 2_000, 50_000
FRAMES, STAYS = 100_000, 30
STEP = 16
PICTURES = 2000  # of a changed kind
ATTACKED = 512
CHUNK = 1024
ATTACKS = ("FGSM 4/255", "PGD-20 4/255", "PGD-20 8/255", "DeepFool L2")
SHARES = (0.02, 0.1, 0.5, 1.0)


class Known(NamedTuple):
    """What the tests need of N pictures."""

    p_values: Floats  # (N,)
    numbers: Floats  # (N, T)

    def drawn(self, random: np.random.Generator, count: int) -> "Known":
        """So many of them, with replacement."""
        rows = random.integers(0, len(self.p_values), count)
        return Known(self.p_values[rows], self.numbers[rows])


def wrong(runs: int, stream: int, size: int, *, exact: bool, seed: int = 0) -> int:
    """How many of `runs` streams raise an alarm although nothing changed."""
    random = np.random.default_rng(seed)
    scores = np.sort(random.random((size, runs), np.float32), axis=0)
    bands = [band(scores[:, [run]], tolerance=TOLERANCE) for run in range(runs)]
    whole = Band(*(np.concatenate(parts, axis=1) for parts in zip(*bands, strict=True)))
    if exact:
        level = np.repeat(np.array(LEVELS)[:, None], runs, 1)
        whole = Band(whole.levels, level, level)
    drift, alarmed = Drift(whole, risk=RISK), np.zeros(runs, bool)
    for _ in range(stream // CHUNK):
        live = random.random((CHUNK, runs), np.float32)
        ranks = [np.searchsorted(scores[:, run], live[:, run]) for run in range(runs)]
        p_values = (1 + size - np.stack(ranks, 1)) / (size + 1)
        drift.see(p_values.astype(np.float32))
        alarmed |= np.array(drift.by_column) >= 1
    return int(alarmed.sum())


def changes(pool: Tensor) -> dict[str, Tensor]:
    """What benign changes make of pictures (N, C, H, W)."""
    random = torch.Generator().manual_seed(0)
    made = {
        "dusk: half as bright": brightness(pool, 0.5),
        "night: a quarter, sensor noise 0.02": gaussian_noise(brightness(pool, 0.25), 0.02, random),
        "camera: blur 0.7 px": gaussian_blur(pool, 0.7),
        "camera: blur 1.0 px": gaussian_blur(pool, 1.0),
        "camera: noise 0.04": gaussian_noise(pool, 0.04, random),
        "re-encoded: JPEG 75": jpeg(pool, 75),
        "re-encoded: JPEG 40": jpeg(pool, 40),
    }
    return {name: round8(images) for name, images in made.items()}


def known(pipeline: Pipeline, victim: nn.Module, images: Tensor) -> Known:
    """Pictures through the served pipeline."""
    p_values = []
    for part in torch.split(images, 64):
        evidence = pipeline.evidence(part.numpy())
        p_values.append(pipeline.judge(evidence, answers(victim, part)).p_values)
    return Known(np.concatenate(p_values), numbers(images.numpy()))


def prepared(asked: argparse.Namespace) -> dict[str, Known]:
    """Every kind of picture by name, "clean" first."""
    if asked.cache and asked.cache.exists():
        with np.load(asked.cache) as stored:
            names = [name[2:] for name in stored.files if name[:2] == "p:"]
            return {name: Known(stored[f"p:{name}"], stored[f"n:{name}"]) for name in names}
    data = [read_images(asked.data, split, limit=None, seed=0) for split in ("train", "test")]
    parts = divide(*data)
    test = pictures(parts.test)
    clean = test.pixels(torch.arange(len(test)))
    pipeline = Pipeline.load(asked.pack, secret=b"drift" * 8)
    net = load_classifier(asked.victim)
    victim = fuse(net).eval()
    found = {"clean": known(pipeline, victim, clean)}
    for name, images in changes(clean[:PICTURES]).items():
        print(f"  {name}", flush=True)
        found[name] = known(pipeline, victim, images)
    labels = test.labels[:ATTACKED]
    for name in ATTACKS:
        print(f"  {name}", flush=True)
        random = torch.Generator().manual_seed(0)
        made = attack_production(victim, STATIC[name], clean[:ATTACKED], labels, random)
        found[name] = known(pipeline, victim, made.images)
    if asked.cache:
        arrays = {f"p:{name}": one.p_values for name, one in found.items()}
        arrays |= {f"n:{name}": one.numbers for name, one in found.items()}
        np.savez(asked.cache, **arrays)
    return found


def watch(pack: Path) -> TrafficShift:
    """As a gateway makes it."""
    entry = calibration.load(pack / "calibration.npz")["upstream"]
    return TrafficShift(entry, risk=RISK, tolerance=TOLERANCE, reference=2000)


def delay(pack: Path, clean: Known, changed: Known, share: float, seed: int) -> tuple[int, str]:
    """Pictures until the first alarm, and what is said of them `AFTER` later; -1 for none."""
    random = np.random.default_rng(seed)
    shift = watch(pack)
    shift.note(*clean.drawn(random, BEFORE))
    at, count = -1, 0
    while count < MOST and (at < 0 or count < at + AFTER):
        mixed, other = clean.drawn(random, STEP), changed.drawn(random, STEP)
        row = random.random(STEP) < share
        shift.note(
            np.where(row, other.p_values, mixed.p_values),
            np.where(row[:, None], other.numbers, mixed.numbers),
        )
        count += STEP
        moved = shift.pictures is not None and shift.pictures.evidence >= 1
        if at < 0 and (shift.verdicts.evidence >= 1 or moved):
            at = count
    return at, shift.finding


def right(asked: argparse.Namespace, found: Mapping[str, Known]) -> list[dict[str, Any]]:
    """Delays under every change."""
    clean, rows = found["clean"], []
    cases = [(name, one, 1.0) for name, one in found.items() if name not in ("clean", *ATTACKS)]
    cases += [(name, found[name], share) for name in ATTACKS for share in SHARES]
    for name, one, share in cases:
        runs = [delay(asked.pack, clean, one, share, seed) for seed in range(asked.repeats)]
        at = [run[0] if run[0] >= 0 else np.inf for run in runs]
        said = Counter(run[1] for run in runs)
        row = {
            "change": name,
            "share": share,
            "flagged": float((one.p_values <= 0.05).mean()),
            "alarmed": float(np.isfinite(at).mean()),
            "median": float(np.median(at)),
            "90%": float(np.quantile(at, 0.9, method="higher")),
            "finding": dict(said),
        }
        rows.append(row)
        print(
            f"| {name}, {100 * share:g}% | {100 * row['flagged']:.0f}% | {row['median']:,.0f} | "
            f"{row['90%']:,.0f} | {', '.join(f'{k} {v}' for k, v in said.items())} |",
            flush=True,
        )
    return rows


def standing(asked: argparse.Namespace, clean: Known, streams: int = 20) -> int:
    """How many streams of clean test pictures, judged by the pack's own calibration, alarm."""
    random = np.random.default_rng(0)
    entry = calibration.load(asked.pack / "calibration.npz")["upstream"]
    one = band(entry.scores[:, -1:], tolerance=TOLERANCE)
    drift = Drift(Band(*(np.repeat(part, streams, 1) for part in one)), risk=RISK)
    alarmed = np.zeros(streams, bool)
    for _ in range(asked.stream // CHUNK):
        drift.see(clean.p_values[random.integers(0, len(clean.p_values), (CHUNK, streams))])
        alarmed |= np.array(drift.by_column) >= 1
    line = f"{alarmed.sum()} of {streams} streams of {asked.stream:,} alarm"
    print(f"clean test pictures: {line}", flush=True)
    return int(alarmed.sum())


def video(asked: argparse.Namespace, clean: Known) -> dict[int, int]:
    """How many streams of standing pictures raise an alarm, by `every`."""
    found = {}
    for every in (1, 30, 100):
        found[every] = 0
        for seed in range(asked.repeats):
            random, shift, worst = np.random.default_rng(seed), watch(asked.pack), 0.0
            rows = np.repeat(random.integers(0, len(clean.p_values), FRAMES // STAYS), STAYS)
            rows = rows[random.random(len(rows)) < 1 / every]
            for start in range(0, len(rows), STEP):
                part = rows[start : start + STEP]
                shift.note(clean.p_values[part], clean.numbers[part])
                worst = max(worst, shift.verdicts.evidence)
            found[every] += worst >= 1
        line = f"{found[every]} of {asked.repeats} streams alarm"
        print(f"video, one frame in {every}: {line}", flush=True)
    return found


def main() -> None:
    """Print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--pack", type=Path, default=Path("models/gtsrb"))
    parser.add_argument("--victim", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--stream", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    report: dict[str, Any] = {"wrong": {}}
    found = prepared(asked)
    for name, one in found.items():
        middle = " ".join(f"{value:.3f}" for value in np.median(one.numbers, axis=0))
        print(f"{name}: p <= 0.05 {100 * (one.p_values <= 0.05).mean():.1f}%, numbers {middle}")
    for size in (1200, 4252):
        for exact in (False, True):
            stream = asked.stream // 10 if exact else asked.stream
            count = wrong(asked.runs, stream, size, exact=exact)
            report["wrong"][f"{size} {'exact' if exact else 'band'}"] = count
            what = "exact uniformity" if exact else "the band"
            line = f"{count} of {asked.runs} streams of {stream:,} alarm"
            print(f"against {what}, {size} calibration pictures: {line}", flush=True)
    report["clean"] = standing(asked, found["clean"])
    report["right"] = right(asked, found)
    report["video"] = video(asked, found["clean"])
    if asked.json:
        asked.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
