"""Judging together: the same verdicts as alone, fewer calls, nobody harmed."""

import asyncio
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guard.gateway.judge import Judge
from guard.pipeline import Evidence, Pipeline
from guard.testing import clean_images, suspicious_images
from guard.verdict import Verdicts

ONE_HOT = np.eye(3, dtype=np.float32)


@pytest.fixture(scope="module")
def pipeline(tiny_pack: Path) -> Iterator[Pipeline]:
    """One tiny pipeline."""
    yield Pipeline.load(tiny_pack)


def cases(pipeline: Pipeline) -> list[tuple[Evidence, Any]]:
    """Three requests of different sizes and verdicts."""
    return [
        (pipeline.evidence(clean_images([0])), ONE_HOT[[0]]),
        (pipeline.evidence(suspicious_images([1, 2])), ONE_HOT[[1, 2]]),
        (pipeline.evidence(clean_images([2, 0, 1])), ONE_HOT[[2, 1, 1]]),
    ]


def same(left: Verdicts, right: Verdicts) -> bool:
    """Whether two verdicts agree in every column."""
    return all(
        np.array_equal(getattr(left, f.name), getattr(right, f.name), equal_nan=True)
        if f.name != "score_names"
        else left.score_names == right.score_names
        for f in fields(left)
        if f.name != "place"  # that is what differs
    )


async def test_requests_of_one_turn_share_a_call_and_get_their_own_rows(
    pipeline: Pipeline,
) -> None:
    """Every column of every request is what judging it alone gives."""
    sizes: list[int] = []

    def judgement(evidence: Evidence, answer: Any) -> Verdicts:
        sizes.append(len(evidence))
        return pipeline.judge(evidence, answer)

    judge = Judge(judgement)
    waiting = cases(pipeline)
    together = await asyncio.gather(*(judge(*case) for case in waiting))
    assert sizes == [6]
    assert all(same(t, pipeline.judge(*c)) for t, c in zip(together, waiting, strict=True))
    assert [one.place for one in together] == [(0, 6), (1, 6), (3, 6)]
    assert same(await judge(*waiting[1]), pipeline.judge(*waiting[1]))


async def test_one_that_cannot_be_judged_harms_only_itself(pipeline: Pipeline) -> None:
    """The others are judged alone and get their verdicts."""
    (first, second, third) = cases(pipeline)
    judge = Judge(pipeline.judge)
    outcomes = await asyncio.gather(
        judge(*first), judge(second[0], ONE_HOT[:, :2]), judge(*third), return_exceptions=True
    )
    assert isinstance(outcomes[1], Exception)
    assert isinstance(outcomes[0], Verdicts) and isinstance(outcomes[2], Verdicts)
    assert outcomes[2].decisions.tolist() == [0, 1, 0]


async def test_one_who_left_is_not_judged(pipeline: Pipeline) -> None:
    """A cancelled request costs nothing and shifts nobody."""
    (first, second, third) = cases(pipeline)
    judge = Judge(pipeline.judge)
    tasks = [asyncio.create_task(judge(*case)) for case in (first, second, third)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(outcomes[1], asyncio.CancelledError)
    assert isinstance(outcomes[0], Verdicts) and isinstance(outcomes[2], Verdicts)
    assert outcomes[2].labels.tolist() == [2, 1, 1]
