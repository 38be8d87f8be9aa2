"""One model's watch over sequences of queries, beside its defence; what it does about an attack.

The comparison runs in a thread of its own while the defence runs. A refusal would tell the attacker
which queries to avoid, so by default a flagged query is answered what the first of its sequence
was: it learns nothing, and nobody who is honest is turned away. Letters: N images, K classes.
"""

import asyncio
import logging
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from guard import metrics
from guard.config import Model
from guard.config.queries import Queries
from guard.pipeline import Pipeline
from guard.traffic.memory import Reach
from guard.traffic.queries import QueryWatch, Sighting
from guard.verdict import Decision, Mode, Policy, Verdicts

Floats = NDArray[np.float32]
Watching = asyncio.Future[list[Sighting]]

SURE = 0.999  # what a cached answer gives its class
log = logging.getLogger(__name__)


def sequences_of(
    model: Model, policy: Policy, pipeline: Pipeline, secret: bytes | None
) -> "Sequences | None":
    """The watch over a model's queries, None where the settings do not ask for one."""
    if not model.queries.watch:
        return None
    key = secret or secrets.token_bytes(32)
    return Sequences(model.name, policy.mode, model.queries, pipeline.input_shape, key)


class Sequences:
    """`begin` with a request's images, `settle` once their verdicts are there.

    Whatever goes wrong here is logged and counted, and the request goes its way without it.
    """

    def __init__(
        self, model: str, mode: Mode, settings: Queries, shape: tuple[int, int, int], secret: bytes
    ) -> None:
        self._model = model
        self._action = settings.on_attack if mode == "enforce" else "alert"
        self._watch = QueryWatch(
            shape,
            secret=secret,
            reach=Reach(settings.reach, settings.stretched_reach),
            capacity=settings.remembered,
            seconds=settings.seconds,
            alarm=settings.alarm,
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"queries-{model}")
        self._attacks = metrics.QUERY_ATTACK.labels(model)
        self._known = metrics.QUERIES_REMEMBERED.labels(model)

    def begin(self, pixels: Floats) -> Watching:
        """Take note of images (N, C, H, W) in [0, 1]."""
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._thread, self._watch.look, pixels)

    async def settle(self, watching: Watching, verdicts: Verdicts) -> Verdicts:
        """The verdicts as the policy has them; what they answer is remembered."""
        try:
            sightings = await watching
        except Exception:
            log.exception("%s: the watch over queries failed", self._model)
            metrics.error("queries")
            return verdicts
        flagged = np.array([each.flagged for each in sightings], bool)
        for each, label, decision in zip(
            sightings, verdicts.labels.tolist(), verdicts.decisions.tolist(), strict=True
        ):
            if decision in (Decision.ALLOW, Decision.FLAG):
                self._watch.answered(each, label)
        self._known.set(len(self._watch.memory))
        if not flagged.any():
            return verdicts
        self._attacks.inc(int(flagged.sum()))
        self._tell(sightings)
        return self._acted(verdicts, sightings, flagged)

    def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown(wait=False)

    def _tell(self, sightings: list[Sighting]) -> None:
        """One line for each new attack."""
        for each in sightings:
            if each.query >= 0 and each.length == self._watch.alarm:
                log.warning(
                    "%s: %d queries that nearly repeat each other look like an attack (%d)",
                    self._model, each.length, each.sequence,
                )  # fmt: skip

    def _acted(
        self, verdicts: Verdicts, sightings: list[Sighting], flagged: NDArray[np.bool_]
    ) -> Verdicts:
        passing = np.isin(verdicts.decisions, (Decision.ALLOW, Decision.FLAG))
        if self._action == "block":
            decisions = np.where(flagged & passing, np.int32(Decision.BLOCK), verdicts.decisions)
            return replace(verdicts, decisions=decisions.astype(np.int32))
        labels = np.array([each.label for each in sightings], np.int64)
        rows = flagged & passing & (labels >= 0)
        if self._action != "cached" or not rows.any():
            return verdicts
        count = verdicts.probabilities.shape[1]
        answers = np.full((len(rows), count), (1 - SURE) / max(count - 1, 1), np.float32)
        answers[np.arange(len(rows)), np.maximum(labels, 0)] = SURE
        return replace(
            verdicts,
            labels=np.where(rows, labels, verdicts.labels),
            probabilities=np.where(rows[:, None], answers, verdicts.probabilities),
            substituted=verdicts.substituted | rows,
        )
