"""An adversarial set: pictures attacked in shards, each written as soon as it is done.

A run that was stopped goes on with the first missing shard; the same seed gives the same set
whatever happened in between. What is measured is what is written: pictures of 8 bits per channel.
Letters: N images, C H W.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from guard.attacks import round8
from guard.attacks.ball import Ball, sizes
from guard.attacks.blackbox import NO_ANSWER, Tally
from guard.data import ImageSet
from guard.data.write import read_columns, read_notes, write_parquet
from guard.errors import ConfigError
from guard.evaluation.victim import Victim
from guard.threat import ThreatModel

Log = Callable[[str], None]
# images, labels, targets or None, generator -> adversarial images
Attack = Callable[[Tensor, Tensor, Tensor | None, torch.Generator], Tensor]
COLUMNS = [
    "original_index", "l2", "linf", "fooled", "answer", "original_answer", "label", "target",
    "queries",
]  # fmt: skip


@dataclass(frozen=True)
class Order:
    """What is to be crafted.

    images, index: pictures and (N,) where each stands in the data
    attack:        see `Attack`; `tally` counts its queries where it is a black-box attack
    threat:        what rounding to 8 bits must not leave; None where it does not matter
    targets:       (N,) wanted classes, or None
    recipe:        everything that decides the outcome, for the metadata and for going on
    command:       how it was called, for people
    """

    images: ImageSet
    index: NDArray[np.int64]
    attack: Attack
    recipe: Mapping[str, Any]
    seed: int = 0
    threat: ThreatModel | None = None
    targets: NDArray[np.int64] | None = None
    tally: Tally | None = None
    command: str = ""
    split: str = "test"
    batch: int = 128
    shard: int = 512
    device: str = "cpu"

    def files(self, out: Path) -> list[tuple[Path, slice]]:
        """The shards: their files and their rows."""
        starts = range(0, len(self.images), self.shard)
        names = [f"{self.split}-{k:05d}-of-{len(starts):05d}.parquet" for k in range(len(starts))]
        return [
            (out / name, slice(start, min(start + self.shard, len(self.images))))
            for name, start in zip(names, starts, strict=True)
        ]


def craft(order: Order, victim: Victim, out: Path, *, log: Log = lambda _line: None) -> None:
    """Write every shard that is not there yet.

    ConfigError when the folder holds a set of another recipe.
    """
    files, recipe = order.files(out), json.loads(json.dumps(dict(order.recipe)))
    strangers = {*out.glob("*.parquet")} - {file for file, _ in files}
    for file in [*strangers, *(file for file, _ in files if file.exists())]:
        if file in strangers or read_notes(file).get("recipe") != recipe:
            raise ConfigError(f"{out} holds another set ({file.name}): choose another --out")
    started, fresh = time.monotonic(), 0
    for number, (file, rows) in enumerate(files):
        if file.exists():
            log(f"{file.name}: there already")
            continue
        columns, pictures = _shard(order, victim, rows, number)
        part = order.images.subset(rows)
        written = ImageSet(pictures, part.labels, part.classes, part.groups)
        notes = {"recipe": order.recipe, "command": order.command}
        write_parquet(file, written, columns=columns, notes=notes)
        fresh += len(part)
        speed = fresh / (time.monotonic() - started)
        left = (len(order.images) - rows.stop) / speed
        right = float((columns["answer"] == part.labels).mean())
        log(f"{file.name}: {100 * right:.1f}% still right, {speed:.1f} images/s, {left:.0f} s left")


def summary(order: Order, out: Path) -> dict[str, Any]:
    """The whole set in numbers, read back from its files."""
    parts = [read_columns(file, COLUMNS) for file, _ in order.files(out)]
    every = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    before = every["original_answer"] == every["label"]
    won = every["fooled"] & before
    report: dict[str, Any] = {
        "images": len(before),
        "clean_accuracy": float(before.mean()),
        "accuracy": float((every["answer"] == every["label"]).mean()),
        "no_answer": float((every["answer"] == NO_ANSWER).mean()),
        "success": float(won.sum() / max(before.sum(), 1)),  # of the pictures read right before
        "median_l2": float(np.median(every["l2"][won])) if won.any() else None,
        "median_linf": float(np.median(every["linf"][won])) if won.any() else None,
    }
    if "queries" in every:
        report["queries_per_image"] = float(every["queries"].mean())
    return report


def settle(found: Tensor, images: Tensor, threat: ThreatModel | None) -> Tensor:
    """The 8-bit pictures nearest to what was found, that are still inside the budget.

    Where rounding leaves the ball, every pixel is rounded towards its original instead.
    """
    rounded = round8(found)
    if threat is None or threat.norm == "patch":
        return rounded
    norm: Ball = "l2" if threat.norm == "l2" else "linf"
    inner = round8(images + ((found - images) * 255).trunc() / 255)
    fits = sizes(rounded - images, norm=norm) <= threat.eps * (1 + 1e-5) + 1e-7
    return torch.where(fits, rounded, inner)


def _shard(
    order: Order, victim: Victim, rows: slice, number: int
) -> tuple[dict[str, NDArray[Any]], NDArray[np.uint8]]:
    """The columns (N,) of one shard and its pictures, uint8 (N, H, W, C)."""
    generator = torch.Generator(order.device).manual_seed(1_000_003 * order.seed + number)
    columns: dict[str, list[Tensor]] = {}
    pictures = []
    for start in range(rows.start, rows.stop, order.batch):
        part = slice(start, min(start + order.batch, rows.stop))
        found, values = _batch(order, victim, part, generator)
        pictures.append((found.permute(0, 2, 3, 1) * 255).round().byte().cpu())
        for name, value in values.items():
            columns.setdefault(name, []).append(value.cpu())
    joined = {name: torch.cat(values).numpy() for name, values in columns.items()}
    return {"original_index": order.index[rows], **joined}, torch.cat(pictures).numpy()


def _batch(
    order: Order, victim: Victim, part: slice, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Adversarial images (N, C, H, W) and what is known of each (N,)."""
    some = order.images.subset(part)
    images = torch.from_numpy(some.pixels()).to(order.device)
    labels = torch.from_numpy(some.labels).to(order.device)
    targets = None
    if order.targets is not None:
        targets = torch.from_numpy(order.targets[part]).to(order.device)
    before = victim.answers(images)
    found = order.attack(images, labels, targets, generator)
    found = settle(found.detach(), images, order.threat)
    answer = victim.answers(found)
    wrong = (answer != labels) & (answer != NO_ANSWER) if targets is None else answer == targets
    values = {
        "l2": sizes(found - images, norm="l2").flatten(),
        "linf": sizes(found - images, norm="linf").flatten(),
        "fooled": wrong,
        "answer": answer,
        "original_answer": before,
    }
    if targets is not None:
        values["target"] = targets
    if order.tally is not None:
        values["queries"] = order.tally.queries[-len(images) :]
    return found, values
