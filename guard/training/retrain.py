"""One round of learning: reviewed suspects in, a candidate pack out, judged and signed.

Read -> rows -> select -> learn -> temper -> thresholds -> export -> gate -> sign. The new detector
is served by nobody until somebody promotes it. Where stored evidence can be used it takes seconds.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from guard import calibration
from guard.calibration import Calibration
from guard.defenses.detector import Detector
from guard.defenses.load import load_detector
from guard.errors import InputError, PackError
from guard.evaluation.admission import admit
from guard.evaluation.compared import HEADS
from guard.evaluation.gate import GateReport, Side, compare
from guard.evaluation.gatereport import markdown
from guard.pack import Pack, sign_pack, write_manifest
from guard.provenance import Making, write_provenance
from guard.rows import Rows, joined
from guard.training import candidate
from guard.training.calibrate import ODDS, kept_rows
from guard.training.cases import Case
from guard.training.classifier import Log
from guard.training.finetune import DRIFT, SHARE, STEPS, Report, finetune
from guard.training.gather import Gathered, gather, mark
from guard.training.reviewed import Reviewed
from guard.training.selection import Limits, described, select
from guard.training.story import story, tell
from guard.training.temper import temper
from guard.training.waiting import seen_before

if TYPE_CHECKING:  # it needs opacus
    from guard.training.private import Private

HELD = 8  # one suspect of so many is kept apart for the gate, for good
GATE, REFUSED = "gate.json", ".refused"


@dataclass(frozen=True)
class Own:
    """What the operator calibrated for the parent: entries in place of the pack's, and rows."""

    entries: Mapping[str, Calibration] = field(default_factory=dict)
    rows: Rows | None = None


def own(path: Path | None, parent: Pack) -> Own:
    """Read what `guard calibrate` wrote for the parent; PackError where it does not fit."""
    if path is None:
        return Own()
    entries = calibration.load(path)
    for entry in entries.values():
        if entry.about.get("pack") != parent.digest:
            raise PackError(f"{path} was made for another pack: run `guard calibrate` again")
    rows = kept_rows(path)
    if rows is None:
        raise PackError(f"{path} keeps no rows of evidence: run `guard calibrate` again")
    if rows.columns != (*parent.columns, ODDS):
        raise PackError(f"{path} holds the evidence of another graph")
    return Own(entries, rows)


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
    heads: tuple[str, ...] = tuple(HEADS)  # that decide in service, and so may not be worse
    seed: int = 0
    private: "Private | None" = None  # DP-SGD
    work: Path | None = None  # keeps what takes long, so that a stopped round goes on
    trained_by: str = ""
    command: str = "guard retrain"

    @property
    def entries(self) -> dict[str, Calibration]:
        """The parent's calibrations, the operator's in the place of the pack's."""
        own = calibration.load(self.parent.files["calibration.npz"])
        return own | dict(self.own.entries)


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
    clock, started = Clock(), datetime.now(UTC)
    tables = candidate.parent_tables(order.parent)
    with clock("read"):
        found = gather(
            cases,
            order.parent,
            model=order.model,
            seed=order.seed,
            work=order.work,
            log=log,
        )
    log(f"{len(found.reviewed)} reviewed suspects")
    with clock("select"):
        lesson = chosen(found, tables["learn"], order)
    grown = candidate.grown(tables, [order.fresh, lesson.new.rows()], order.own.rows)
    with clock("learn"):
        log(f"detector: {len(lesson.new)} of them teach it, among {len(grown['learn'])} rows")
        child, report = learn(lesson.new, tables["learn"], order)
        detector, went = kept(child, grown, order)
    log(
        f"detector: kept {went['upstream']:.0%} of the way, {went['alone']:.0%} without an upstream"
    )
    staging = order.out.with_name(f".{order.out.name}.making")
    shutil.rmtree(staging, ignore_errors=True)
    with clock("export"):
        entries = candidate.thresholds(detector, grown, _abouts(order))
        parity = candidate.write_parts(staging, order.parent, detector, grown, entries)
    log(f"export: ONNX Runtime and torch agree to {parity:.1e}")
    manifest = candidate.described(order.parent, detector, parity)
    manifest["retrained"] = story(
        found,
        lesson.new,
        lesson.selection,
        report,
        went=went,
        seen=lesson.seen,
        fresh=order.fresh,
        trained_by=order.trained_by,
    )
    with clock("gate"):
        gate = judge(staging, manifest, lesson.held, order)
    return finish(staging, manifest, gate, order, started, clock.seconds)


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
    if not selection.kept.any() and order.fresh is None:
        dropped = ", ".join(f"{n} {name}" for name, n in selection.counts().items() if n)
        raise InputError(f"no reviewed suspect may be learned from: {dropped}")
    kept, apart = asked.subset(selection.kept), apart[fresh | apart][selection.kept]
    return Lesson(
        kept.subset(~apart),
        kept.subset(apart),
        described(selection, order.limits),
        tuple(sorted(seen | set(marks))),
    )


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
        private=order.private,
    )


def kept(
    child: Detector, tables: Mapping[str, Rows], order: Order
) -> tuple[Detector, dict[str, float]]:
    """As much of what was learned as the gate allows, and how much that is by head."""
    parent, about = load_detector(order.parent).requires_grad_(False), _abouts(order)
    before = Side(parent, order.entries)

    def worse(detector: Detector) -> set[str]:
        after = Side(detector, candidate.thresholds(detector, tables, about))
        report = compare(before, after, holdout=tables["holdout"], classes=order.parent.classes)
        return {row.head for row in report.refused}

    return temper(parent, child, worse)


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
        heads=order.heads,
    )


def finish(
    staging: Path,
    manifest: Mapping[str, Any],
    gate: GateReport,
    order: Order,
    started: datetime,
    seconds: Mapping[str, float],
) -> Outcome:
    """Write down what was found, and give the folder its name."""
    (staging / GATE).write_text(json.dumps(gate.record(), indent=1) + "\n")
    (staging / "MODEL_CARD.md").write_text(f"{tell(manifest)}\n{markdown(gate)}")
    write_provenance(staging, manifest, _making(manifest, order, started))
    digest = write_manifest(staging, manifest)
    folder = order.out
    if gate.passed:
        sign_pack(staging)
    else:
        folder = folder.with_name(folder.name + REFUSED)
        shutil.rmtree(folder, ignore_errors=True)
    staging.replace(folder)
    return Outcome(folder, digest, gate, manifest["retrained"], seconds)


def _making(manifest: Mapping[str, Any], order: Order, started: datetime) -> Making:
    told = manifest["retrained"]
    parent = order.parent.digest.removeprefix("sha256:")
    inputs = {f"pack:{order.parent.name}": parent, "suspects": told["ids_sha256"]}
    if order.fresh is not None:
        inputs["data:fresh"] = hashlib.sha256(order.fresh.features.tobytes()).hexdigest()
    settings = {
        name: getattr(order, name) for name in ("model", "heads", "share", "drift", "steps", "seed")
    }
    facts = {name: told[name] for name in ("counts", "selection", "reviewers", "finetune")}
    return Making(order.command, started, inputs, settings, facts)


def _abouts(order: Order) -> dict[str, dict[str, str]]:
    """What stays true of the parent's calibrations when the detector is another."""
    return {
        name: {key: value for key, value in entry.about.items() if key != "pack"}
        for name, entry in order.entries.items()
    }


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
