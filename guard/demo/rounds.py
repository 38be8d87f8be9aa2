"""The demo's traffic, round by round: clean signs, then every attack, through both doors."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from guard.demo import traffic
from guard.demo.picture import Example
from guard.demo.report import Latency, Row
from guard.demo.stage import Effort, Say, Stage
from guard.demo.strikes import FROM, TO, Strike, Target, strikes
from guard.demo.traffic import MODEL, Seen
from guard.errors import GuardError

Bytes = NDArray[np.uint8]
CLEAN = "clean signs"


@dataclass
class Log:
    """What the rounds found out."""

    latency: Latency
    rows: list[Row] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    sticker: dict[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


def play(stage: Stage, effort: Effort, *, seed: int, say: Say) -> Log:
    """Send everything; raises GuardError when production is too weak to be attacked."""
    say(f"[4/4] sending {len(stage.fresh)} fresh clean signs, directly and through the gateway")
    images, labels = _planes(stage.fresh.images), stage.fresh.labels
    direct, guarded = traffic.ask_both(stage.direct, stage.gateway, images, say=say)
    log = Log(_latency(direct, guarded))
    log.rows.append(_row(CLEAN, labels, direct, guarded, attack=False))
    right = np.flatnonzero(direct.labels == labels)
    if not (labels[right] == stage.fresh.classes.index(FROM)).any():
        raise GuardError("production recognises no STOP sign: training it went wrong")
    shown = [(CLEAN, images[right[0]], images[right[0]], int(labels[right[0]]))]
    for strike in _strikes(stage, right, effort, seed):
        say(f"      {strike.name}: {len(strike.images)} signs")
        truth = labels[right][strike.index]
        direct, guarded = traffic.ask_both(stage.direct, stage.gateway, strike.images, say=say)
        log.rows.append(_row(strike.name, truth, direct, guarded, attack=True))
        at = _chosen(direct.labels != truth, len(log.rows))
        shown.append((strike.name, images[right][strike.index[at]], strike.images[at], truth[at]))
    log.sticker = _sticker(direct, stage.fresh.classes.index(TO))  # the last strike
    log.metrics = traffic.scrape(stage.metrics_port)
    log.examples = [_example(stage, *one) for one in shown]
    return log


def _strikes(stage: Stage, right: NDArray[np.int64], effort: Effort, seed: int) -> Iterator[Strike]:
    """Made from the fresh pictures that production has right."""
    known = stage.fresh.subset(right)
    target = Target(
        stage.network,
        torch.from_numpy(known.pixels()),
        torch.from_numpy(known.labels),
        stage.own,
        effort.attacked,
        effort.steps,
        effort.sticker_steps,
    )
    return strikes(target, torch.Generator().manual_seed(seed))


def _row(name: str, truth: NDArray[np.int64], direct: Seen, guarded: Seen, *, attack: bool) -> Row:
    wrong = float((direct.labels != truth).mean())
    through = float((~guarded.blocked & (guarded.labels != truth)).mean())
    return Row(
        name=name,
        count=len(truth),
        unguarded_accuracy=1 - wrong,
        unguarded_success=wrong if attack else None,
        guarded_success=through if attack else None,
        alarms=float(guarded.blocked.mean()),
    )


def _latency(direct: Seen, guarded: Seen) -> Latency:
    """Medians, the warm-up left out."""
    start = min(20, len(direct.seconds) // 2)
    first, second = (1000 * float(np.median(s.seconds[start:])) for s in (direct, guarded))
    return Latency(first, second, len(direct.seconds) - start)


def _sticker(direct: Seen, wanted: int) -> dict[str, Any]:
    return {"from": FROM, "to": TO, "read_as_wanted": float((direct.labels == wanted).mean())}


def _chosen(fooled: NDArray[np.bool_], turn: int) -> int:
    """The picture to show: one that fooled production, another sign in every row."""
    hits = np.flatnonzero(fooled)
    return int(hits[5 * turn % len(hits)]) if len(hits) else 0


def _example(stage: Stage, name: str, original: Bytes, sent: Bytes, truth: int) -> Example:
    """The verdict in full, as the gateway gives it to whom it shows `full`."""
    answer = traffic.probabilities(stage.direct, sent[None])
    image, classes = traffic.pixels(sent[None]), stage.fresh.classes
    (verdict,) = stage.gateway.inspect(MODEL, image, answer)
    (alone,) = stage.gateway.inspect(MODEL, image)
    return Example(
        name=name,
        original=original,
        sent=sent,
        truth=classes[truth],
        production=classes[int(answer[0].argmax())],
        confidence=float(answer[0].max()),
        ensemble=classes[alone.label],
        blocked=verdict.decision.name == "BLOCK",
        p_value=verdict.p_value,
    )


def _planes(images: Bytes) -> Bytes:
    """(N, H, W, C) to (N, C, H, W)."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
