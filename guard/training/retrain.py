"""One round of learning: reviewed suspects in, a candidate pack out, judged and signed.

Read -> rows -> select -> learn -> thresholds -> export -> gate -> sign. The new detector is served
by nobody until somebody promotes it. Where the stored evidence can be used this takes seconds.
"""

import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from guard import calibration
from guard.calibration import Calibration
from guard.defenses.detector import Detector
from guard.defenses.load import load_detector
from guard.errors import InputError
from guard.evaluation.admission import admit
from guard.evaluation.gate import GateReport
from guard.evaluation.gatereport import markdown
from guard.pack import Pack, sign_pack, write_manifest
from guard.rows import Rows, joined
from guard.training import candidate
from guard.training.cases import Case
from guard.training.classifier import Log
from guard.training.finetune import DRIFT, SHARE, STEPS, Report, finetune
from guard.training.gather import Gathered, gather, mark
from guard.training.reviewed import Reviewed
from guard.training.selection import Limits, described, select
from guard.training.story import story, tell

HELD = 8  # one suspect of so many is kept apart for the gate, for good
GATE, REFUSED = "gate.json", ".refused"


@dataclass(frozen=True)
class Own:
    """What the operator calibrated for the parent: entries in place of the pack's, and rows."""

    entries: Mapping[str, Calibration] = field(default_factory=dict)
    rows: Rows | None = None


@dataclass(frozen=True)
class Order:
    """What a round is to be made of."""

    parent: Pack
    out: Path
    model: str | None = None
    own: Own = field(default_factory=Own)
    fresh: Rows | None = None  # evidence on attacks and pictures that were made here
    share: float = SHARE
    drift: float = DRIFT
    steps: int = STEPS
    limits: Limits = field(default_factory=Limits)
    seed: int = 0
    trained_by: str = ""


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    folder: Path  # the candidate, or where the refused one lies
    digest: str
    gate: GateReport
    retrained: Mapping[str, Any]  # as in the manifest
    seconds: Mapping[str, float]  # by step


def retrain(cases: Iterable[Case], order: Order, *, log: Log = lambda _line: None) -> Outcome:
    """Make a candidate; its folder is `order.out` where the gate let it pass, else OUT.refused.

    Raises InputError where nothing is new, PackError where the parent keeps no rows.
    """
    clock = Clock()
    tables = candidate.parent_tables(order.parent)
    with clock("read"):
        found = gather(cases, order.parent, model=order.model, seed=order.seed, log=log)
        lesson = chosen(found, tables["learn"], order)
    log(f"{len(found.reviewed)} reviewed suspects, {len(lesson.new)} to learn from")
    with clock("learn"):
        detector, report = learn(lesson.new, tables["learn"], order)
    tables = candidate.grown(tables, [order.fresh, lesson.new.rows()], order.own.rows)
    log(f"detector: trained on {len(tables['learn'])} rows of evidence")
    staging = order.out.with_name(f".{order.out.name}.making")
    shutil.rmtree(staging, ignore_errors=True)
    with clock("export"):
        before = calibration.load(order.parent.files["calibration.npz"]) | dict(order.own.entries)
        about = {name: entry.about for name, entry in before.items()}
        entries = candidate.thresholds(detector, tables, about)
        parity = candidate.write_parts(staging, order.parent, detector, tables, entries)
    log(f"export: ONNX Runtime and torch agree to {parity:.1e}")
    manifest = candidate.described(order.parent, detector, parity)
    manifest["retrained"] = story(
        found,
        lesson.new,
        lesson.selection,
        report,
        seen=lesson.seen,
        fresh=order.fresh,
        trained_by=order.trained_by,
    )
    with clock("gate"):
        gate = judge(staging, manifest, lesson.held, order)
    return finish(staging, manifest, gate, order, clock.seconds)


@dataclass(frozen=True)
class Lesson:
    """What a round learns from, what the gate asks about, and what neither sees."""

    new: Reviewed
    held: Reviewed
    selection: Mapping[str, object]  # limits, and how many were dropped for what
    seen: tuple[str, ...]  # marks of all suspects that a round had in its hands


def chosen(found: Gathered, old: Rows, order: Order) -> Lesson:
    """Choose among the suspects; raises InputError where there is nothing new."""
    reviewed = found.reviewed
    marks = [mark(str(one)) for one in reviewed.id]
    seen = seen_before(order.parent)
    fresh = np.array([one not in seen for one in marks], bool)
    if not fresh.any() and order.fresh is None:
        raise InputError("there is no reviewed suspect that the pack has not learned from")
    # The id decides, which nobody can choose: what is kept apart once is never learned from.
    apart = np.array([int(one, 16) % HELD == 0 for one in marks], bool)
    asked = reviewed.subset(fresh | apart)
    selection = select(asked, old, order.limits)
    kept, apart = asked.subset(selection.kept), apart[fresh | apart][selection.kept]
    return Lesson(
        kept.subset(~apart),
        kept.subset(apart),
        described(selection, order.limits),
        tuple(sorted(seen | set(marks))),
    )


def seen_before(parent: Pack) -> set[str]:
    """Marks of all suspects that a round before this one had in its hands."""
    return set(map(str, parent.manifest.get("retrained", {}).get("seen", ())))


def learn(new: Reviewed, old: Rows, order: Order) -> tuple[Detector, Report]:
    """Go on training the parent's detector."""
    known = old if order.fresh is None else joined([old, order.fresh])
    return finetune(
        load_detector(order.parent),
        known,
        new.rows(),
        new.has_upstream,
        share=order.share,
        drift=order.drift,
        steps=order.steps,
        seed=order.seed,
    )


def judge(staging: Path, manifest: Mapping[str, Any], held: Reviewed, order: Order) -> GateReport:
    """What the gate says of the folder as it would be served."""
    (staging / "MODEL_CARD.md").write_text("Being judged.\n")
    write_manifest(staging, manifest)
    return admit(
        Pack.load(staging, check_pin=False),
        order.parent,
        calibrations=order.own.entries,
        reviewed=held.rows(),
        answered=held.has_upstream,
    )


def finish(
    staging: Path,
    manifest: Mapping[str, Any],
    gate: GateReport,
    order: Order,
    seconds: Mapping[str, float],
) -> Outcome:
    """Write down what was found, and give the folder its name."""
    (staging / GATE).write_text(json.dumps(gate.record(), indent=1) + "\n")
    (staging / "MODEL_CARD.md").write_text(f"{tell(manifest)}\n{markdown(gate)}")
    digest = write_manifest(staging, manifest)
    folder = order.out
    if gate.passed:
        sign_pack(staging)
    else:
        folder = folder.with_name(folder.name + REFUSED)
        shutil.rmtree(folder, ignore_errors=True)
    staging.replace(folder)
    return Outcome(folder, digest, gate, manifest["retrained"], seconds)


class Clock:
    """Seconds that each step took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        """Time what is done inside."""
        start = time.perf_counter()
        yield
        self.seconds[step] = round(time.perf_counter() - start, 3)
