"""A candidate beside the pack that serves: it scores live traffic, and decides nothing.

The evidence is there already, since both have the same graph; the candidate's detector and
thresholds judge it in a thread of their own once the answer has left. When that thread cannot keep
up images are left out and counted. Letters: N images, K classes.
"""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from guard import metrics
from guard.pipeline import Evidence, Pipeline
from guard.verdict import Decision, Policy, Verdicts

Floats = NDArray[np.float32]

WAITING = 2048  # images
KINDS = len(Decision)
log = logging.getLogger(__name__)


class _Seen(NamedTuple):
    """What one request had."""

    evidence: Evidence
    answer: Floats | None
    decisions: NDArray[np.int32]


class Shadow:
    """`take` what was judged. Whatever goes wrong here is logged and counted, no request fails."""

    def __init__(self, model: str, pipeline: Pipeline, policy: Policy) -> None:
        self.pack, self._model = pipeline.pack, model
        self._pipeline, self._policy = pipeline, policy
        self._counts = np.zeros((KINDS, KINDS), np.int64)  # by the serving one's and its own
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"shadow-{model}")
        self._lock = threading.Lock()
        self._waiting: list[_Seen] = []
        self._size = 0

    def take(self, evidence: Evidence | None, answer: Floats | None, verdicts: Verdicts) -> None:
        """Judge these too, later; evidence None: the defence failed on them.

        answer: the upstream's probabilities (N, K).
        """
        if evidence is None:
            return
        with self._lock:
            if self._size + len(evidence) > WAITING:
                metrics.SHADOW_DROPPED.labels(self._model).inc(len(evidence))
                return
            self._size += len(evidence)
            self._waiting.append(_Seen(evidence, answer, verdicts.decisions))
            first = len(self._waiting) == 1
        if first:
            self._thread.submit(self._judge)

    @property
    def counts(self) -> dict[tuple[int, int], int]:
        """Images by the serving pack's decision and this one's, those that there are."""
        return {(a, b): int(self._counts[a, b]) for a, b in np.argwhere(self._counts).tolist()}

    def close(self) -> None:
        """Judge what waits, let go of the thread."""
        self._thread.shutdown()

    def _judge(self) -> None:
        """In the thread: all that waits."""
        try:
            with self._lock:
                waiting, self._waiting, self._size = self._waiting, [], 0
            for seen in waiting:
                own = self._pipeline.judge(seen.evidence, seen.answer, self._policy)
                pairs = KINDS * seen.decisions.astype(np.int64) + own.decisions
                found = np.bincount(pairs, minlength=KINDS**2).reshape(KINDS, KINDS)
                self._counts += found
                metrics.shadowed(self._model, found, own.p_values)
        except Exception:
            log.exception("%s: the pack in shadow failed", self._model)
            metrics.error("shadow")
