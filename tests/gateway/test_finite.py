"""A number that is not finite never ends in ALLOW, wherever it comes from."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guard.config import Output
from guard.gateway.server import running
from guard.pipeline import Evidence, Pipeline
from guard.testing import FakeUpstream, answer_colour, clean_images, gateway_config
from guard.verdict import Decision, Policy
from tests.gateway.wire import Caller

POISON = st.sampled_from([np.nan, np.inf, -np.inf])
ROWS = 4
SEARCH = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
POLICIES = st.builds(
    Policy,
    mode=st.sampled_from(["monitor", "enforce"]),
    on_flag=st.sampled_from(["annotate", "substitute", "block"]),
    on_error=st.sampled_from(["allow", "block"]),
)


@pytest.fixture(scope="module")
def pipeline(tiny_pack: Path) -> Iterator[Pipeline]:
    """One tiny pipeline for all searches."""
    yield Pipeline.load(tiny_pack)


def evidence(pipeline: Pipeline) -> Evidence:
    """Evidence on four clean images."""
    return pipeline.evidence(clean_images([0, 1, 2, 0]))


@SEARCH
@given(row=st.integers(0, 3), place=st.integers(0, 191), value=POISON, policy=POLICIES)
def test_in_the_input(
    pipeline: Pipeline, row: int, place: int, value: float, policy: Policy
) -> None:
    """One broken pixel makes its image ERROR, and only that image."""
    images = clean_images([0, 1, 2, 0])
    images.reshape(ROWS, -1)[row, place] = value
    verdicts = pipeline.judge(pipeline.evidence(images), None, policy)
    assert verdicts.decisions[row] == Decision.ERROR
    assert (np.delete(verdicts.decisions, row) == Decision.ALLOW).all()


@SEARCH
@given(
    row=st.integers(0, 3),
    where=st.sampled_from(["rows", "probabilities"]),
    value=POISON,
    upstream=st.booleans(),
    policy=POLICIES,
)
def test_in_a_members_output(
    pipeline: Pipeline, row: int, where: str, value: float, upstream: bool, policy: Policy
) -> None:
    """Whatever the graph puts out that is not finite is ERROR, with and without an upstream."""
    seen = evidence(pipeline)
    spoilt = getattr(seen, where).copy()
    spoilt[row, -1] = value
    answer = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]] if upstream else None
    verdicts = pipeline.judge(replace(seen, **{where: spoilt}), answer, policy)
    assert verdicts.decisions[row] == Decision.ERROR
    assert (np.delete(verdicts.decisions, row) == Decision.ALLOW).all()


@SEARCH
@given(row=st.integers(0, 3), column=st.integers(0, 2), value=POISON, policy=POLICIES)
def test_in_the_upstreams_answer(
    pipeline: Pipeline, row: int, column: int, value: float, policy: Policy
) -> None:
    """A probability of the upstream that is no number makes its row ERROR."""
    answer = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    answer[row, column] = value
    verdicts = pipeline.judge(evidence(pipeline), answer, policy)
    assert verdicts.decisions[row] == Decision.ERROR
    assert (np.delete(verdicts.decisions, row) == Decision.ALLOW).all()


@SEARCH
@given(row=st.integers(0, 3), column=st.integers(0, 1), value=POISON, policy=POLICIES)
def test_in_the_detector(
    pipeline: Pipeline, row: int, column: int, value: float, policy: Policy
) -> None:
    """A score that is no number makes its row ERROR, whichever defence it belongs to."""
    whole = Pipeline._run_detector

    def spoilt(self: Pipeline, *arguments: Any) -> Any:
        scores = whole(self, *arguments).copy()
        scores[row, column] = value
        return scores

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pipeline, "_run_detector", spoilt)
        verdicts = pipeline.judge(evidence(pipeline), None, policy)
    assert verdicts.decisions[row] == Decision.ERROR
    assert (np.delete(verdicts.decisions, row) == Decision.ALLOW).all()


@pytest.mark.parametrize("mode", ["monitor", "enforce"])
@pytest.mark.parametrize("on_error", ["allow", "block"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
async def test_over_the_wire_an_upstreams_nan_is_masked_or_refused(
    tiny_pack: Path, mode: str, on_error: str, value: float
) -> None:
    """In every posture: the broken row is ERROR and blank, a request of such rows fails."""

    def poison(inputs: Any) -> Any:
        answer = answer_colour(inputs)
        answer["probabilities"][0, 1] = value  # type: ignore[index]
        return answer

    async with FakeUpstream(poison) as upstream:
        config = gateway_config(tiny_pack, upstream=upstream.address, mode=mode, on_error=on_error)
        async with running(config) as gateway, Caller(gateway.address) as caller:
            answer = await caller.infer(clean_images([0, 1]))
            assert answer.parameters["guard_decision"] == "ERROR,ALLOW"
            assert answer.outputs["label"].tolist() == [-1, 1]
            assert np.isnan(answer.outputs["probabilities"][0]).all()
            code, reason, _ = await caller.refused(clean_images([0]))
            assert (code, reason) == ("INTERNAL", "NON_FINITE")


@pytest.mark.parametrize("alone", [False, True])
async def test_over_the_wire_a_members_nan_is_masked_or_refused(
    tiny_pack: Path, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    """on_error = "allow" never covers it: it is not a fault that passes, but no number."""
    whole = Pipeline.evidence

    def spoilt(self: Pipeline, images: Any) -> Evidence:
        seen = whole(self, images)
        rows = seen.rows.copy()
        rows[0] = np.nan
        return replace(seen, rows=rows)

    monkeypatch.setattr(Pipeline, "evidence", spoilt)
    async with FakeUpstream() as upstream:
        address = "" if alone else upstream.address
        config = gateway_config(tiny_pack, upstream=address, on_error="allow")
        async with running(config) as gateway, Caller(gateway.address) as caller:
            answer = await caller.infer(clean_images([0, 1]))
            assert answer.parameters["guard_decision"] == "ERROR,ALLOW"
            assert answer.outputs["label"].tolist() == [-1, 1]
            code, reason, _ = await caller.refused(clean_images([0]))
            assert (code, reason) == ("INTERNAL", "NON_FINITE")


@pytest.mark.parametrize("on_error", ["allow", "block"])
async def test_over_the_wire_a_nan_pixel_is_the_callers_mistake(
    tiny_pack: Path, monkeypatch: pytest.MonkeyPatch, on_error: str
) -> None:
    """Even where the defence is down and its faults pass, a NaN pixel does not."""

    def broken(_self: Pipeline, _images: Any) -> Evidence:
        raise RuntimeError("down")

    monkeypatch.setattr(Pipeline, "evidence", broken)
    images = clean_images([0, 1])
    images[1, 0, 0, 0] = np.nan
    async with FakeUpstream() as upstream:
        config = gateway_config(tiny_pack, upstream=upstream.address, on_error=on_error)
        async with running(config) as gateway, Caller(gateway.address) as caller:
            code, reason, message = await caller.refused(images)
            assert (code, reason) == ("INVALID_ARGUMENT", "INVALID_INPUT")
            assert "images" in message


async def test_a_nan_from_the_upstream_does_not_pass_where_the_defence_is_down(
    tiny_pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unexamined images may pass, numbers that are none may not."""

    def broken(_self: Pipeline, _images: Any) -> Evidence:
        raise RuntimeError("down")

    def poison(inputs: Any) -> Any:
        answer = answer_colour(inputs)
        answer["probabilities"][0, 1] = np.nan  # type: ignore[index]
        return answer

    monkeypatch.setattr(Pipeline, "evidence", broken)
    async with FakeUpstream(poison) as upstream:
        config = gateway_config(tiny_pack, upstream=upstream.address, on_error="allow")
        async with running(config) as gateway, Caller(gateway.address) as caller:
            answer = await caller.infer(clean_images([0, 1]))
            assert answer.parameters["guard_decision"] == "ERROR,ABSTAIN"
            assert answer.outputs["label"].tolist() == [-1, 1]


async def test_a_label_beside_probabilities_that_are_none_is_no_answer(tiny_pack: Path) -> None:
    """argmax of NaN is 0: a plausible label must not hide that the model broke."""

    def poison(inputs: Any) -> Any:
        answer = answer_colour(inputs)
        answer["probabilities"][1] = np.nan  # type: ignore[index]
        return answer

    async with FakeUpstream(poison) as upstream:
        config = gateway_config(tiny_pack, upstream=upstream.address, output=Output(tensor="label"))
        async with running(config) as gateway, Caller(gateway.address) as caller:
            answer = await caller.infer(clean_images([0, 0]))
            assert answer.parameters["guard_decision"] == "ALLOW,ERROR"
            assert answer.outputs["label"].tolist() == [0, -1]
