"""Which images of a request become suspects, and what of them is kept.

Kept is what was flagged or blocked, and a random sample drawn before anything was known of it.
Not kept is what has no evidence (ABSTAIN) or no finite numbers (ERROR): neither could be judged
again. Letters: N images, K classes.
"""

import asyncio
import logging
import re
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import guard
from guard import metrics
from guard.gateway.identity import Identity, current
from guard.gateway.intake import INLINE_BYTES
from guard.gateway.upstream import Metadata
from guard.pipeline import Evidence, Pipeline
from guard.suspects.capture import Capture
from guard.suspects.late import LateStore
from guard.suspects.record import Suspect
from guard.verdict import Decision, Verdicts

Floats = NDArray[np.float32]
Rows = NDArray[np.bool_]
WHY = {Decision.FLAG: "flagged", Decision.BLOCK: "blocked", Decision.ALLOW: "sampled"}
# https://www.w3.org/TR/trace-context/#traceparent-header
TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
log = logging.getLogger(__name__)


class Catch:
    """One model's way to `capture`.

    sample_rate: share of all images that is drawn. budget: the false-alarm budget in force.
    """

    def __init__(
        self,
        capture: Capture,
        store: LateStore,
        *,
        model: str,
        pipeline: Pipeline,
        budget: float,
        sample_rate: float,
    ) -> None:
        self._capture, self._store = capture, store
        self._model, self._pack = model, pipeline.pack.digest
        self._engine = f"guard {guard.__version__}, {pipeline.engine}"
        self._budget, self._rate = budget, sample_rate
        self._random = np.random.default_rng()
        self._pseudonym = lru_cache(maxsize=4096)(store.pseudonym)
        self._sampled = metrics.SUSPECTS_SAMPLED.labels(model)
        self._why = {one: metrics.SUSPECTS_CAPTURED.labels(model, why) for one, why in WHY.items()}
        metrics.expect_suspects(model)

    def draw(self, count: int) -> Rows:
        """Which of so many images are in the sample, before anybody knows more of them."""
        drawn = self._random.random(count) < self._rate
        if drawn.any():
            self._sampled.inc(int(drawn.sum()))
        return drawn

    async def take(
        self,
        pixels: Floats,
        drawn: Rows,
        evidence: Evidence | None,
        verdicts: Verdicts,
        answer: Floats | None,
        metadata: Metadata = (),
    ) -> Sequence[str]:
        """Queue what is to be kept; N ids, empty but for alarms that really were queued.

        Never fails: what goes wrong here costs a suspect, not an answer. pixels: (N, C, H, W).
        answer: the upstream's probabilities (N, K).
        """
        decisions = verdicts.decisions
        alarmed = (decisions == Decision.FLAG) | (decisions == Decision.BLOCK)
        chosen = np.flatnonzero(alarmed | drawn)
        if not len(chosen):
            return ()
        case = _Case(pixels, drawn, evidence, verdicts, answer, metadata, current(), time.time())
        try:
            if len(chosen) * pixels[0].nbytes <= INLINE_BYTES:
                queued = self._queued(chosen, case)
            else:  # hashing takes too long for the loop
                queued = await asyncio.to_thread(self._queued, chosen, case)
        except Exception as error:
            log.error("%d suspects are lost: %s", len(chosen), type(error).__name__)
            metrics.SUSPECTS_DROPPED.labels("error").inc(len(chosen))
            return ()
        return [queued.get(n, "") if alarmed[n] else "" for n in range(len(pixels))]

    def _queued(self, chosen: NDArray[np.intp], case: "_Case") -> dict[int, str]:
        """The ids of what was queued, by place in the request."""
        ids = {}
        for n in chosen.tolist():
            decision = Decision(int(case.verdicts.decisions[n]))
            if case.evidence is None or decision not in self._why:
                metrics.SUSPECTS_DROPPED.labels("unusable").inc()
            elif not self._store.ready:
                metrics.SUSPECTS_DROPPED.labels("store").inc()
            else:
                suspect = self._suspect(n, case, case.evidence)
                if self._capture.offer(suspect):
                    self._why[decision].inc()
                    ids[n] = suspect.id
        return ids

    def _suspect(self, n: int, case: "_Case", evidence: Evidence) -> Suspect:
        """Copies throughout: a view would keep the whole batch in memory."""
        image = case.pixels[n].copy()
        client, tenant = self._pseudonym(case.who.name), case.who.scope
        first, size = evidence.place or (0, len(evidence))
        judged, among = case.verdicts.place or (0, len(case.verdicts))
        return Suspect(
            id=self._store.suspect_id(
                image, client=client, tenant=tenant, model=self._model, pack=self._pack
            ),
            taken=case.taken,
            model=self._model,
            pack=self._pack,
            tenant=tenant,
            client=client,
            near=(),
            sampled=bool(case.drawn[n]),
            budget=self._budget,
            verdict=case.verdicts.row(n),
            image=image,
            evidence=evidence.rows[n].copy(),
            probabilities=evidence.probabilities[n].copy(),
            upstream=None if case.answer is None else case.answer[n].copy(),
            noise_index=int(evidence.noise_index[n]),
            trace=trace_of(case.metadata),
            engine=self._engine,
            place=(first + n, size),
            judged=(judged + n, among),
        )


class _Case(NamedTuple):
    """What is known of one request."""

    pixels: Floats
    drawn: Rows
    evidence: Evidence | None
    verdicts: Verdicts
    answer: Floats | None
    metadata: Metadata
    who: Identity
    taken: float


def trace_of(metadata: Metadata) -> str:
    """The trace id in a `traceparent`, "" for none or a malformed one: clients write it."""
    for key, value in metadata:
        if key == "traceparent" and isinstance(value, str) and (m := TRACEPARENT.fullmatch(value)):
            return m[1]
    return ""
