"""Who is still right: classifiers side by side under the attacks that papers report.

Examples are not rounded to eight bits here, so that the figures can be held against published
ones; intervals are Wilson's (1927) at 95%. Every finished cell is written to a file at once, and a
stopped run goes on with the missing ones.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from guard.attacks.autoattack import QUICK
from guard.attacks.catalogue import ready
from guard.errors import InputError
from guard.threat import ThreatModel

Log = Callable[[str], None]
BATCH = 250
COLUMNS = ("fgsm", "pgd-20", "cw-50", "apgd", "autoattack")


@dataclass(frozen=True)
class Column:
    """One attack on the first `count` pictures.

    name: "clean"; "fgsm"; "pgd-N" (cross-entropy, step eps/4) and "cw-N" (margin loss, step
    eps/8), N steps from one random start, L-inf; "apgd" (APGD-CE and targeted APGD, the two that
    decide AutoAttack); "autoattack" (standard).
    """

    name: str
    count: int
    threat: ThreatModel

    def __post_init__(self) -> None:
        head, _, steps = self.name.partition("-")
        counted = head in ("pgd", "cw") and steps.isdigit()
        if not (counted or self.name in ("clean", "fgsm", "apgd", "autoattack")):
            raise InputError(f"no column {self.name!r}; there are clean, {', '.join(COLUMNS)}")

    @property
    def title(self) -> str:
        """For a table's head."""
        return self.name if self.name == "clean" else f"{self.name} {self.threat}"

    def attack(self, seed: int) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
        """The attack, ready to be called with (model, images, labels)."""
        generator = torch.Generator().manual_seed(seed)
        head, _, steps = self.name.partition("-")
        if head in ("pgd", "cw"):
            step = self.threat.eps / (4 if head == "pgd" else 8)
            name = "pgd" if head == "pgd" else "cw-linf"
            return ready(name, self.threat, steps=int(steps), step=step, generator=generator)
        if self.name == "apgd":
            return ready("autoattack", self.threat, parts=QUICK, generator=generator)
        return ready(self.name, self.threat, generator=generator)


@dataclass(frozen=True)
class Standing:
    """How many of `count` pictures a classifier still names right."""

    right: int
    count: int
    seconds: float = 0.0

    @property
    def share(self) -> float:
        """Right answers, as a share."""
        return self.right / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of the share."""
        found = binomtest(self.right, self.count).proportion_ci(0.95, method="wilson")
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.share:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def stand(
    model: nn.Module, images: Tensor, labels: Tensor, column: Column, *, seed: int = 0
) -> Standing:
    """Attack images (N, C, H, W) in [0, 1] of labels (N,) and count the right answers left."""
    started, right = time.monotonic(), 0
    images, labels = images[: column.count], labels[: column.count]
    attack = None if column.name == "clean" else column.attack(seed)
    for some, named in zip(torch.split(images, BATCH), torch.split(labels, BATCH), strict=True):
        with torch.no_grad():
            stands = model(some).argmax(1) == named
        if attack is not None and bool(stands.any()):
            found = attack(model, some[stands], named[stands])
            with torch.no_grad():
                stands[stands.clone()] = model(found).argmax(1) == named[stands]
        right += int(stands.sum())
    return Standing(right, len(images), time.monotonic() - started)


def table(
    models: Mapping[str, nn.Module],
    images: Tensor,
    labels: Tensor,
    columns: Sequence[Column],
    *,
    kept: Path | None = None,
    log: Log = lambda _line: None,
) -> dict[str, dict[str, Standing]]:
    """Every column of every model; cells found in the file `kept` are not computed again.

    Raises InputError, before anything is attacked, when a model is not made for these pictures.
    """
    for name, model in models.items():
        _fits(name, model, images, labels)
    cells: dict[str, Any] = {}
    if kept and kept.exists():
        cells = json.loads(kept.read_text())
    pictures = _digest(images[:64])
    found: dict[str, dict[str, Standing]] = {}
    for name, model in models.items():
        weights = _digest(*model.state_dict().values())
        for column in columns:
            key = f"{name} {weights} {pictures} {column.title} {min(column.count, len(images))}"
            if key not in cells:
                cell = stand(model, images, labels, column)
                cells[key] = [cell.right, cell.count, cell.seconds]
                log(f"{name}: {column.title} {cell}, {cell.seconds:.0f} s")
                if kept:
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    kept.write_text(json.dumps(cells, indent=1))
            found.setdefault(name, {})[column.title] = Standing(*cells[key])
    return found


def markdown(found: Mapping[str, Mapping[str, Standing]]) -> str:
    """The table with intervals, a row per model; counts stand in the head."""
    return "\n".join(_lines(found))


@torch.no_grad()
def _fits(name: str, model: nn.Module, images: Tensor, labels: Tensor) -> None:
    try:
        classes = model(images[:1]).shape[1]
    except RuntimeError as error:
        shape = tuple(images.shape[1:])
        raise InputError(f"{name} does not take pictures of {shape}") from error
    if int(labels.max()) >= classes:
        found = int(labels.max()) + 1
        raise InputError(f"the pictures have {found} classes, {name} answers with {classes}")


def _lines(found: Mapping[str, Mapping[str, Standing]]) -> Iterator[str]:
    first = next(iter(found.values()))
    head = [f"{title} (n {cell.count})" for title, cell in first.items()]
    yield f"| model | {' | '.join(head)} |"
    yield f"| --- |{' ---: |' * len(head)}"
    for name, row in found.items():
        yield f"| {name} | {' | '.join(str(cell) for cell in row.values())} |"


def _digest(*tensors: Tensor) -> str:
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:12]
