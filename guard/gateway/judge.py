"""Judging for many requests at once, once they and their upstreams have answered.

The detector is so small that calling it costs more than running it. What becomes ready in one turn
of the event loop is judged together; each request gets its own rows. Letters: N images, K classes.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from guard.pipeline import Evidence
from guard.verdict import Verdicts

Floats = NDArray[np.float32]
Judgement = Callable[[Evidence, Floats], Verdicts]
_Waiting = tuple[Evidence, Floats, "asyncio.Future[Verdicts]"]


class Judge:
    """Awaitable verdicts on evidence and the upstream's probabilities (N, K), by `judgement`.

    A judgement that fails on many is repeated one by one, so that no request harms another.
    """

    def __init__(self, judgement: Judgement) -> None:
        self._judgement = judgement
        self._waiting: list[_Waiting] = []

    async def __call__(self, evidence: Evidence, answer: Floats) -> Verdicts:
        """Verdicts on N images; raises what `judgement` raises on them."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Verdicts] = loop.create_future()
        self._waiting.append((evidence, answer, future))
        if len(self._waiting) == 1:
            loop.call_soon(self._run)
        return await future

    def _run(self) -> None:
        waiting, self._waiting = self._waiting, []
        waiting = [each for each in waiting if not each[2].done()]
        if len(waiting) > 1 and self._run_together(waiting):
            return
        for evidence, answer, future in waiting:
            try:
                future.set_result(self._judgement(evidence, answer))
            except Exception as error:
                future.set_exception(error)

    def _run_together(self, waiting: list[_Waiting]) -> bool:
        try:
            verdicts = self._judgement(
                joined([evidence for evidence, _, _ in waiting]),
                np.concatenate([answer for _, answer, _ in waiting]),
            )
        except Exception:
            return False
        start = 0
        for evidence, _, future in waiting:
            stop = start + len(evidence)
            future.set_result(part(verdicts, start, stop))
            start = stop
        return True


def joined(evidence: list[Evidence]) -> Evidence:
    """The evidence of several requests as one."""
    return Evidence(
        np.concatenate([each.rows for each in evidence]),
        np.concatenate([each.probabilities for each in evidence]),
        np.concatenate([each.noise_index for each in evidence]),
    )


def part(verdicts: Verdicts, start: int, stop: int) -> Verdicts:
    """The verdicts on images start to stop."""
    rows = slice(start, stop)
    first, size = verdicts.place or (0, len(verdicts))
    return replace(
        verdicts,
        decisions=verdicts.decisions[rows],
        p_values=verdicts.p_values[rows],
        labels=verdicts.labels[rows],
        probabilities=verdicts.probabilities[rows],
        scores=verdicts.scores[rows],
        score_p_values=verdicts.score_p_values[rows],
        substituted=verdicts.substituted[rows],
        place=(first + start, size),
    )
