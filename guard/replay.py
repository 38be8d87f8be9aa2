"""A suspect's verdict once more: from its image, its pack and the deployment's secret.

On the engine that gave it, with the same settings, it comes out bit for bit: the image stands in
the same place of runs of the same size. Otherwise it is said what differs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import guard
from guard.pipeline import Evidence, Pipeline
from guard.suspects.record import Suspect
from guard.verdict import Verdict

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Replay:
    """The verdict now, and what about it is not as it was; nothing: bit for bit the same."""

    verdict: Verdict
    differences: tuple[str, ...]

    @property
    def identical(self) -> bool:
        """Whether evidence, scores, p-values and decision are the same bits."""
        return not self.differences


def replay(suspect: Suspect, pipeline: Pipeline) -> Replay:
    """Judge it again with this pack, policy, calibration and secret."""
    (place, size), (judged, among) = suspect.place, suspect.judged
    seen = pipeline.evidence(pipeline.pixels(_repeated(suspect.image, size)))
    evidence = seen.slice(place, place + 1)
    rows = Evidence(
        _repeated(evidence.rows[0], among),
        _repeated(evidence.probabilities[0], among),
        np.repeat(evidence.noise_index, among),
    )
    upstream = None if suspect.upstream is None else _repeated(suspect.upstream, among)
    verdict = pipeline.judge(rows, upstream).row(judged)
    decided, counted = [*_discrete(suspect, verdict)], [*_numeric(suspect, evidence, verdict)]
    causes = [*_causes(suspect, pipeline, evidence)] if decided or counted else []
    if decided and not counted and not causes:
        causes = ["because of the policy, or the queries before it? those are not replayed"]
    return Replay(verdict, (*decided, *counted, *causes))


def _discrete(suspect: Suspect, now: Verdict) -> Iterator[str]:
    for what in ("decision", "label", "substituted"):
        was, has = getattr(suspect.verdict, what), getattr(now, what)
        if was != has:
            yield f"{what}: {getattr(was, 'name', was)} then, {getattr(has, 'name', has)} now"


def _numeric(suspect: Suspect, evidence: Evidence, now: Verdict) -> Iterator[str]:
    before = suspect.verdict
    for name, was, has in (
        ("evidence", suspect.evidence, evidence.rows[0]),
        ("probabilities", suspect.probabilities, evidence.probabilities[0]),
        ("scores", _numbers(before.scores), _numbers(now.scores)),
        ("p-values", _numbers(before.p_values), _numbers(now.p_values)),
    ):
        if was.shape != has.shape:
            yield f"{name}: {len(was)} numbers then, {len(has)} now"
        elif was.tobytes() != has.tobytes():
            yield f"{name}: up to {float(np.abs(was - has).max()):.2g} apart"


def _causes(suspect: Suspect, pipeline: Pipeline, evidence: Evidence) -> Iterator[str]:
    """What is not as it was, and may be why."""
    for what, was, has in (
        ("pack", suspect.pack, pipeline.pack.digest),
        ("budget", suspect.budget, pipeline.policy.max_false_positive_rate),
        ("engine", suspect.engine, f"guard {guard.__version__}, {pipeline.engine}"),
    ):
        if was != has:
            yield f"because of the {what}? {was} then, {has} now"
    if suspect.noise_index != evidence.noise_index[0]:
        yield "because of the secret? it draws other noise"


def _numbers(named: Mapping[str, float]) -> NDArray[np.float64]:
    """The values, by name."""
    return np.array([named[key] for key in sorted(named)], np.float64)


def _repeated(row: Floats, count: int) -> Floats:
    """As many of it as there were neighbours: nothing depends on what they are."""
    return np.repeat(row[None], count, axis=0)
