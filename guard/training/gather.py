"""From what people said of suspects to rows that a detector may learn from.

Evidence is taken as it was stored where the same graph made it: that of the parent or of a pack it
descends from. Anything else is computed again from the picture.
"""

import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from guard import calibration
from guard.defenses.upstream import COLUMN, upstream_odds
from guard.durable import write_whole
from guard.errors import InputError
from guard.pack import Pack
from guard.pipeline import Pipeline
from guard.rows import Floats
from guard.training.cases import Case
from guard.training.classifier import Log
from guard.training.reviewed import Reviewed
from guard.verdict import Policy

DAY = 86400.0  # seconds
BATCH, PART = 32, 256  # pictures in a run, and in a file
LABELS = ("adversarial", "benign")


@dataclass(frozen=True)
class Gathered:
    """What may be learned from, and how many suspects were left out, by reason."""

    reviewed: Reviewed
    left_out: Mapping[str, int]
    computed: int  # rows whose evidence was computed again


def gather(
    cases: Iterable[Case],
    parent: Pack,
    *,
    model: str | None = None,
    seed: int = 0,
    work: Path | None = None,
    log: Log = lambda _line: None,
) -> Gathered:
    """Reviewed suspects of one model, oldest first, as rows of the parent's graph.

    model: None where there is only one. work: a folder for what takes long, so that a stopped round
    goes on. InputError where there are several models, or where the parent's graph cannot see a
    suspect's picture.
    """
    left_out: Counter[str] = Counter()
    kept: dict[str, Case] = {}
    for case in cases:
        reason = _unfit(case, parent, model) or ("there twice" if case.id in kept else "")
        if reason:
            left_out[reason] += 1
        else:
            kept[case.id] = case
    found = sorted(kept.values(), key=lambda case: (case.taken, case.id))
    models = sorted({case.model for case in found})
    if len(models) > 1:
        raise InputError(f"these are suspects of {' and '.join(models)}: say which with --model")
    stored = _stored(parent)
    again = [case for case in found if case.pack not in stored]
    fresh = _computed(again, parent, seed, work, log)
    evidence = [fresh.get(case.id, (case.evidence, case.probabilities)) for case in found]
    features = _features(found, evidence, parent)
    finite = np.asarray(np.isfinite(features).all(1), bool)
    left_out["not finite"] += int((~finite).sum())
    usable = [found[n] for n in np.flatnonzero(finite)]
    reviewed = _reviewed(usable, features[finite], (*parent.columns, COLUMN))
    return Gathered(reviewed, {k: n for k, n in left_out.items() if n}, len(again))


def mark(suspect_id: str) -> str:
    """What a manifest keeps of a suspect's id: enough to know it again."""
    return hashlib.sha256(suspect_id.encode()).hexdigest()[:16]


def _stored(parent: Pack) -> set[str]:
    """Digests of the packs whose evidence is this graph's."""
    return {parent.digest, *map(str, parent.manifest.get("lineage", ()))}


def _unfit(case: Case, parent: Pack, model: str | None) -> str:
    """Why nothing is learned from it; "" where it may be."""
    if model is not None and case.model != model:
        return "another model"
    if not case.agreed:
        return "reviewers have not agreed"
    if case.label not in LABELS:
        return "reviewers are unsure"
    if case.pack in _stored(parent) and len(case.evidence) != len(parent.columns):
        return "its evidence is not the graph's"
    if any(
        answer is not None and len(answer) != len(parent.classes)
        for answer in (case.probabilities, case.upstream)
    ):
        return "it has other classes"
    return ""


def _computed(
    cases: Sequence[Case], parent: Pack, seed: int, work: Path | None, log: Log
) -> dict[str, tuple[Floats, Floats]]:
    """Evidence and probabilities by id, from the pictures; what `work` has is not made again."""
    if not cases:
        return {}
    log(f"{len(cases)} suspects were judged by another graph: their evidence is computed again")
    entries = calibration.load(parent.files["calibration.npz"])
    secret = f"retrain {seed}".encode()
    pipeline = Pipeline(
        parent, policy=Policy(max_false_positive_rate=0.5), calibrations=entries, secret=secret
    )
    found = {}
    for start in range(0, len(cases), PART):
        part = cases[start : start + PART]
        kept = None if work is None else work / f"evidence-{_name(part, parent, secret)}.npz"
        if kept is None or not kept.exists():
            seen = _evidence(pipeline, part)
            if kept is not None:
                _keep(kept, seen)
        else:
            with np.load(kept, allow_pickle=False) as stored:
                seen = stored["rows"], stored["probabilities"]
        for case, row, answer in zip(part, *seen, strict=True):
            found[case.id] = (row, answer)
        log(f"evidence: {start + len(part)} of {len(cases)}")
    return found


def _evidence(pipeline: Pipeline, cases: Sequence[Case]) -> tuple[Floats, Floats]:
    """(R, E) and (R, K)."""
    rows, answers = [], []
    for start in range(0, len(cases), BATCH):
        part = cases[start : start + BATCH]
        images = [case.image() for case in part]
        for case, image in zip(part, images, strict=True):
            if image.shape != pipeline.input_shape:
                shape = "x".join(map(str, image.shape))
                raise InputError(f"suspect {case.id} is {shape}: the pack cannot judge it")
        seen = pipeline.evidence(pipeline.pixels(np.stack(images)))
        rows.append(seen.rows)
        answers.append(seen.probabilities)
    return np.concatenate(rows), np.concatenate(answers)


def _name(cases: Sequence[Case], parent: Pack, secret: bytes) -> str:
    text = [parent.digest, secret.hex(), *(case.id for case in cases)]
    return hashlib.sha256("\n".join(text).encode()).hexdigest()[:16]


def _keep(path: Path, seen: tuple[Floats, Floats]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, rows=seen[0], probabilities=seen[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue())


def _features(
    cases: Sequence[Case], evidence: Sequence[tuple[Floats, Floats]], parent: Pack
) -> Floats:
    """(R, F); the odds are 0 where there was no upstream."""
    if not cases:
        return np.empty((0, len(parent.columns) + 1), np.float32)
    rows = np.stack([row for row, _ in evidence])
    ours = torch.from_numpy(np.stack([answer for _, answer in evidence]))
    asked = np.array([case.upstream is not None for case in cases])
    theirs = np.stack([c.probabilities if c.upstream is None else c.upstream for c in cases])
    odds = upstream_odds(ours, torch.from_numpy(theirs)).numpy()
    usable = np.isfinite(theirs).all(1)
    column = np.where(asked, np.where(usable, odds, np.nan), 0.0)
    return np.concatenate([rows, column[:, None]], axis=1).astype(np.float32)


def _reviewed(cases: Sequence[Case], features: Floats, columns: Sequence[str]) -> Reviewed:
    def text(name: str) -> NDArray[np.str_]:
        return np.array([getattr(case, name) for case in cases], dtype=np.str_)

    return Reviewed(
        columns=tuple(columns),
        id=text("id"),
        features=features,
        has_upstream=np.array([case.upstream is not None for case in cases], bool),
        suspicious=np.array([case.label == "adversarial" for case in cases], bool),
        client=text("client"),
        day=np.array([int(case.taken // DAY) for case in cases], np.int32),
        reviewers=np.array([case.reviewers for case in cases], np.int16),
        dissent=np.array([case.dissent for case in cases], np.int16),
        sampled=np.array([case.sampled for case in cases], bool),
        model=text("model"),
        pack=text("pack"),
        predicted=np.array([case.predicted for case in cases], np.int32),
    )
