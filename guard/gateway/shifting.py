"""One model's watch over drift, behind its answers: metrics, and a line of advice in the log.

The tests run in a thread of their own after the verdicts are there. When the thread cannot keep up
pictures are left out, which makes the test slower and nothing else.
"""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from guard import metrics
from guard.config import Model
from guard.gateway.identity import current
from guard.pipeline import Pipeline
from guard.traffic.callers import Callers
from guard.traffic.shift import ADVICE, ALARMS, TrafficShift
from guard.verdict import Verdicts

Floats = NDArray[np.float32]

WAITING = 512  # pictures
STRANGE = (
    "%s: a caller's pictures are suspicious far more often than clean ones are, as those of who"
    " copies or attacks the model; such callers now: %d"
)
log = logging.getLogger(__name__)


def shifting_of(model: Model, pipeline: Pipeline) -> "Shifting | None":
    """The watch over a model's drift, None where the settings do not ask for one."""
    return Shifting(model, pipeline) if model.drift.watch else None


class Shifting:
    """`take` what was judged. Whatever goes wrong here is logged and counted, no request fails."""

    def __init__(self, model: Model, pipeline: Pipeline) -> None:
        settings, self._model = model.drift, model.name
        entry = pipeline.calibrations["upstream" if model.upstream else "alone"]
        risk, tolerance = settings.risk, settings.tolerance
        self.shift = TrafficShift(
            entry, risk=risk, tolerance=tolerance, reference=settings.reference
        )
        self.callers = Callers(entry, most=settings.callers, risk=risk, tolerance=tolerance)
        self._share = 1 / settings.every
        self._random = np.random.default_rng()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"drift-{model.name}")
        self._lock = threading.Lock()
        self._waiting: list[tuple[str, Floats, Floats]] = []
        self._count = 0  # pictures that wait
        self._said = "learning"
        metrics.expect_drift(model.name)

    def take(self, pixels: Floats, verdicts: Verdicts) -> None:
        """Take note of images (N, C, H, W) and their verdicts."""
        chosen = self._random.random(len(pixels)) < self._share
        count = int(chosen.sum())
        with self._lock:
            if not count or self._count + count > WAITING:
                return
            self._waiting.append((current().name, verdicts.p_values[chosen], pixels[chosen]))
            self._count += count
            first = len(self._waiting) == 1
        if first:
            self._thread.submit(self._see)

    def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown(wait=False)

    def _see(self) -> None:
        """In the thread: all that waits."""
        try:
            with self._lock:
                waiting, self._waiting, self._count = self._waiting, [], 0
            for who, p_values, pixels in waiting:
                fresh = self.shift.see(p_values, pixels)
                if self.callers.see(who, p_values[fresh]):
                    log.warning(STRANGE, self._model, self.callers.counts()["strange"])
            self._tell()
        except Exception:
            log.exception("%s: the watch over drift failed", self._model)
            metrics.error("drift")

    def _tell(self) -> None:
        finding = self.shift.finding
        metrics.drift(
            self._model,
            finding,
            verdicts=self.shift.verdicts.evidence,
            pictures=self.shift.pictures.evidence if self.shift.pictures else 0.0,
        )
        metrics.callers(self._model, self.callers.counts())
        if finding != self._said:
            log.log(
                logging.WARNING if finding in ALARMS else logging.INFO,
                "%s: drift: %s: %s", self._model, finding, ADVICE[finding],
            )  # fmt: skip
        self._said = finding
