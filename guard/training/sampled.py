"""Calibrates on traffic: the random sample of all of it, once people have said what is in it.

Only what was drawn before anything was known of it may count. What alarmed is reviewed first, and a
calibration on what happens to be reviewed already would make a detector blind; so nearly all of the
sample has to be settled. No torch: it runs where guard serves. Letters: N suspects, K classes.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guard.calibration import Calibration
from guard.errors import InputError
from guard.pipeline import Evidence, Pipeline
from guard.rows import Rows
from guard.training.calibrate import seen_rows
from guard.training.cases import Case
from guard.verdict import Policy

Floats = NDArray[np.float32]
Entries = dict[str, Calibration]

SETTLED = 0.95  # of the sample, at least
LABELS = ("adversarial", "benign")


@dataclass(frozen=True)
class Sampled:
    """What came of a sample."""

    entries: Entries
    rows: Rows  # what they come from: the next detector is calibrated on it too
    benign: int
    left_out: Mapping[str, int]  # suspects by reason
    busiest: float  # the share that one client sent


def calibrate_on(
    pipeline: Pipeline, cases: Iterable[Case], *, model: str, upstream: bool, about: dict[str, str]
) -> Sampled:
    """Calibrations from the benign part of a model's reviewed random sample.

    upstream: whether the model has one; its stored answers are used. Raises InputError where too
    little is settled, or too little is left for the pipeline's false-alarm budget.
    """
    left_out: Counter[str] = Counter()
    chosen, known = [], set()
    for case in cases:
        reason = _unfit(case, model, upstream=upstream)
        if reason or case.id in known:
            left_out[reason or "there twice"] += 1
        else:
            chosen.append(case)
            known.add(case.id)
    benign = [case for case in chosen if case.label == "benign"]
    left_out["adversarial"] += len(chosen) - len(benign)
    _check(len(chosen), left_out["not settled"], len(benign), pipeline.policy, model)
    seen = _evidence(pipeline, benign)
    about = {**about, "pack": pipeline.pack.digest, "images": str(len(benign))}
    entries, both = {"alone": _fit(pipeline, _scores(pipeline, seen, None), False, about)}, None
    if upstream:
        answer = np.stack([case.upstream for case in benign if case.upstream is not None])
        both = _scores(pipeline, seen, answer)
        entries["upstream"] = _fit(pipeline, both, True, about)
    most = Counter(case.client for case in benign).most_common(1)[0][1]
    left = {reason: count for reason, count in left_out.items() if count}
    rows = seen_rows(pipeline, seen.rows, both)
    return Sampled(entries, rows, len(benign), left, most / len(benign))


def _unfit(case: Case, model: str, *, upstream: bool) -> str:
    """Why it does not count; "" where it does."""
    if case.model != model:
        return "another model"
    if not case.sampled:
        return "not in the random sample"
    if not case.agreed or case.label not in LABELS:
        return "not settled"
    if upstream and case.upstream is None:
        return "no answer of the upstream"
    return ""


def _check(settled: int, open_ones: int, benign: int, policy: Policy, model: str) -> None:
    everything = settled + open_ones
    if settled < SETTLED * everything:
        raise InputError(
            f"{model}: only {settled} of {everything} sampled suspects are settled, and "
            f"{100 * SETTLED:g}% have to be: what is reviewed first is no fair sample"
        )
    needed = int(np.ceil(1 / policy.max_false_positive_rate)) - 1
    if benign < needed or not benign:
        raise InputError(
            f"{model}: {benign} benign suspects of the random sample are too few for a budget of "
            f"{policy.max_false_positive_rate:g}, which takes {needed} at least"
        )


def _evidence(pipeline: Pipeline, cases: Sequence[Case]) -> Evidence:
    """As it was stored where this graph made it, else from the pictures."""
    pack = pipeline.pack
    same = {pack.digest, *map(str, pack.manifest.get("lineage", ()))}
    found = [_seen(pipeline, case, stored=case.pack in same) for case in cases]
    rows, probabilities = zip(*found, strict=True)
    return Evidence(np.stack(rows), np.stack(probabilities), np.zeros(len(found), np.int64))


def _seen(pipeline: Pipeline, case: Case, *, stored: bool) -> tuple[Floats, Floats]:
    shapes = (len(pipeline.pack.columns), len(pipeline.classes))
    if stored:
        if (len(case.evidence), len(case.probabilities)) != shapes:
            raise InputError(f"suspect {case.id}: its evidence is not this graph's")
        return case.evidence, case.probabilities
    fresh = pipeline.evidence(pipeline.pixels(case.image()[None]))
    return fresh.rows[0], fresh.probabilities[0]


def _scores(pipeline: Pipeline, seen: Evidence, answer: Floats | None) -> Floats:
    scores = pipeline.judge(seen, answer).scores
    finite = np.isfinite(scores).all(1)
    if not finite.all():
        raise InputError(f"{int((~finite).sum())} of {len(scores)} suspects have no finite score")
    return scores


def _fit(pipeline: Pipeline, scores: Floats, upstream: bool, about: dict[str, str]) -> Calibration:
    return Calibration.fit(pipeline.score_names(upstream=upstream), scores, about=about)
