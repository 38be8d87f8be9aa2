"""What happens to a request when something fails, is late, is full, or when the caller leaves."""

import asyncio
import itertools
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from guard.config import Output
from guard.gateway.server import running
from guard.testing import (
    FakeUpstream,
    clean_images,
    gateway_config,
    suspicious_images,
)
from tests.gateway.setting import BLOCK, Settings, counted, until
from tests.gateway.wire import Caller, failure_of

# ── when the machinery fails ─────────────────────────────────────────────────────────────────────


def broken(_images: Any) -> Any:
    """A member that fails."""
    raise RuntimeError("/models/member.onnx: bad allocation")


async def test_a_fault_of_the_defence_blocks_by_default(
    tiny_pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fail closed: INTERNAL, counted, and no path in the message."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack)
        monkeypatch.setattr(here.model.pipeline, "evidence", broken)
        before = counted("guard_errors_total", reason="defense")
        code, reason, message = await here.caller.refused(clean_images([0]))
        assert (code, reason) == ("INTERNAL", "DEFENSE_FAILED")
        assert "models" not in message
        assert counted("guard_errors_total", reason="defense") == before + 1


async def test_a_fault_of_the_defence_passes_where_the_operator_says_so(
    tiny_pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """on_error = "allow": the upstream's answer, decision ABSTAIN, counted as passed unexamined."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack, on_error="allow", **BLOCK)
        monkeypatch.setattr(here.model.pipeline, "evidence", broken)
        before = counted("guard_faults_allowed_total", model="tiny")
        answer = await here.caller.infer(clean_images([0, 1]))
        assert answer.outputs["label"].tolist() == [0, 1]
        assert answer.parameters["guard_decision"] == "ABSTAIN,ABSTAIN"
        assert counted("guard_faults_allowed_total", model="tiny") == before + 2


async def test_the_ensemble_never_answers_after_its_own_fault(
    tiny_pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """on_error = "allow" cannot help where the defence is the classifier."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack, alone=True, on_error="allow")
        monkeypatch.setattr(here.model.pipeline, "evidence", broken)
        assert (await here.caller.refused(clean_images([0])))[1] == "DEFENSE_FAILED"


@pytest.mark.parametrize("on_error", ["block", "allow"])
async def test_an_ensemble_without_its_witness(tiny_pack: Path, on_error: str) -> None:
    """answer = "ensemble": an upstream that is away stops the answer, or is done without."""
    async with Settings() as settings:
        fake = FakeUpstream(error=(grpc.StatusCode.UNAVAILABLE, "away"))
        here = await settings.start(tiny_pack, fake, answer="ensemble", on_error=on_error)
        if on_error == "block":
            assert (await here.caller.refused(clean_images([0])))[0] == "UNAVAILABLE"
            return
        answer = await here.caller.infer(suspicious_images([2]), outputs=("label", "guard_scores"))
        assert answer.outputs["label"].tolist() == [2]
        assert answer.parameters["guard_decision"] == "FLAG"
        assert answer.outputs["guard_scores"].shape == (1, 2)


@pytest.mark.parametrize("on_error", ["block", "allow"])
async def test_a_late_defence_is_a_fault(
    tiny_pack: Path, monkeypatch: pytest.MonkeyPatch, on_error: str
) -> None:
    """After evidence_timeout the policy decides, long before the caller's deadline."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack, on_error=on_error, evidence_timeout=0.05)
        whole = here.model.pipeline.evidence

        def slow(images: Any) -> Any:
            time.sleep(0.3)
            return whole(images)

        monkeypatch.setattr(here.model.pipeline, "evidence", slow)
        before = counted("guard_errors_total", reason="defense_late")
        if on_error == "allow":
            answer = await here.caller.infer(clean_images([0]))
            assert answer.parameters["guard_decision"] == "ABSTAIN"
        else:
            assert (await here.caller.refused(clean_images([0])))[:2] == (
                "INTERNAL",
                "DEFENSE_FAILED",
            )
        assert counted("guard_errors_total", reason="defense_late") == before + 1


@pytest.mark.parametrize(
    ("code", "text", "kept"),
    [
        ("INVALID_ARGUMENT", "expected [-1,3,8,8]", True),
        ("NOT_FOUND", "no such version", True),
        ("UNAVAILABLE", "loading /models/x", False),
        ("RESOURCE_EXHAUSTED", "queue of /models/x full", False),
        ("INTERNAL", "/opt/model.py line 3", False),
        ("UNKNOWN", "Traceback", False),
    ],
)
async def test_the_upstreams_status_is_the_callers(
    tiny_pack: Path, code: str, text: str, kept: bool
) -> None:
    """The code is kept; the text only where it explains the caller's own mistake."""
    async with Settings() as settings:
        fake = FakeUpstream(error=(grpc.StatusCode[code], text))
        here = await settings.start(tiny_pack, fake)
        before = counted("guard_upstream_errors_total", model="tiny", code=code)
        seen, reason, message = await here.caller.refused(clean_images([0]))
        assert (seen, reason, text in message) == (code, "UPSTREAM", kept)
        assert counted("guard_upstream_errors_total", model="tiny", code=code) == before + 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda r: r.outputs[0].ClearField("shape"),
        lambda r: r.outputs.pop(),
        lambda r: r.raw_output_contents.pop(),
        lambda r: r.Clear(),
        lambda r: r.raw_output_contents.__setitem__(0, b"short"),
    ],
)
async def test_garbage_from_the_upstream_is_an_error_not_an_answer(
    tiny_pack: Path, spoil: Any
) -> None:
    """A reply that guard cannot read is never passed on unread."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack, FakeUpstream(edit=spoil), on_error="allow")
        code, reason, _ = await here.caller.refused(clean_images([0, 1]))
        assert (code, reason) == ("INTERNAL", "UPSTREAM")


# ── time ─────────────────────────────────────────────────────────────────────────────────────────


async def test_the_callers_deadline_reaches_the_upstream(tiny_pack: Path) -> None:
    """The upstream hears the smaller of the caller's time and its own limit."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack, upstream_timeout=5.0)
        await here.caller.infer(clean_images([0]), timeout=2)
        await here.caller.infer(clean_images([0]), timeout=60)
        first, second = here.upstream.deadlines
        assert first is not None and second is not None
        assert 1 < first < 2.5
        assert 4 < second < 5.5


async def test_an_upstream_that_is_slow_costs_its_own_limit_only(tiny_pack: Path) -> None:
    """upstream_timeout ends the wait with DEADLINE_EXCEEDED and cancels the call there."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack, FakeUpstream(delay=5), upstream_timeout=0.1)
        code, _, _ = await here.caller.refused(clean_images([0]), timeout=5)
        assert code == "DEADLINE_EXCEEDED"
        await until(lambda: here.upstream.cancelled == 1)


async def test_a_server_side_limit_holds_for_callers_without_deadline(tiny_pack: Path) -> None:
    """request_timeout ends a request whose caller would wait for ever."""
    async with Settings() as settings:
        here = await settings.start(
            tiny_pack, FakeUpstream(delay=5), gateway={"request_timeout": 0.1}
        )
        code, _, _ = await here.caller.refused(clean_images([0]), timeout=None)
        assert code == "DEADLINE_EXCEEDED"


async def test_a_caller_who_leaves_takes_the_upstream_call_along(tiny_pack: Path) -> None:
    """Cancellation is propagated, and the gateway answers the next caller."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack, FakeUpstream(delay=5))
        asking = asyncio.create_task(here.caller.infer(clean_images([0])))
        await until(lambda: len(here.upstream.requests) == 1)
        asking.cancel()
        await until(lambda: here.upstream.cancelled == 1)
        here.upstream.delay = 0
        assert (await here.caller.infer(clean_images([1]))).outputs["label"].tolist() == [1]


async def test_an_upstream_that_is_away_is_unavailable_at_once(tiny_pack: Path) -> None:
    """No waiting for a connection: the caller may try another replica."""
    async with Settings() as settings:
        config = gateway_config(tiny_pack, upstream="grpc://127.0.0.1:1", output=Output(tensor="x"))
        gateway = await settings.enter_async_context(running(config))
        caller = await settings.enter_async_context(Caller(gateway.address))
        code, reason, message = await caller.refused(clean_images([0]))
        assert (code, reason) == ("UNAVAILABLE", "UPSTREAM")
        assert "127.0.0.1" not in message
        assert not (await caller.call("ModelReady", name="tiny")).ready


# ── limits ───────────────────────────────────────────────────────────────────────────────────────


async def test_limits_of_one_model(tiny_pack: Path) -> None:
    """Too many images and too many bytes are refused by name before anything is decoded."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack, max_images=2, max_request_bytes=4000)
        code, _, message = await here.caller.refused(clean_images([0, 1, 2]))
        assert (code, "3 images are too many" in message) == ("INVALID_ARGUMENT", True)
        assert "bytes" in (await here.caller.refused(clean_images([0] * 6)))[2]
        assert here.upstream.received == []


async def test_large_tensors_are_decoded_off_the_loop(tiny_pack: Path) -> None:
    """The same answer by the other path."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack, max_images=1000)
        labels = [index % 3 for index in range(900)]
        answer = await here.caller.infer(clean_images(labels))
        assert answer.outputs["label"].tolist() == labels


async def test_requests_of_many_callers_share_runs_and_get_their_own_answers(
    tiny_pack: Path,
) -> None:
    """A hundred callers at once, mixed sizes and verdicts, each gets exactly its own rows."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack, alone=True, gateway={"max_in_flight": 200})
        runs: list[int] = []
        whole = here.model.pipeline.evidence

        def noted(images: Any) -> Any:
            runs.append(len(images))
            time.sleep(0.01)  # so that others come meanwhile, on any machine
            return whole(images)

        here.model.pipeline.evidence = noted  # type: ignore[method-assign]
        wanted = [[(index + step) % 3 for step in range(1 + index % 4)] for index in range(100)]
        make = [suspicious_images if index % 5 == 0 else clean_images for index in range(100)]
        answers = await asyncio.gather(
            *(
                here.caller.infer(build(labels), outputs=("label", "guard_decision"))
                for build, labels in zip(make, wanted, strict=True)
            )
        )
        for index, (answer, labels) in enumerate(zip(answers, wanted, strict=True)):
            assert answer.outputs["label"].tolist() == labels
            assert answer.outputs["guard_decision"].tolist() == [int(index % 5 == 0)] * len(labels)
        assert sum(runs) == sum(map(len, wanted))
        assert len(runs) < 100


async def test_a_full_queue_refuses_with_a_time_to_come_back(
    tiny_pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RESOURCE_EXHAUSTED with OVERLOADED; everyone who was let in is answered."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack, alone=True, gateway={"max_queue": 2})
        gate, began = threading.Event(), threading.Event()
        whole = here.model.pipeline.evidence

        def held(images: Any) -> Any:
            began.set()
            return gate.wait(10) and whole(images)

        monkeypatch.setattr(here.model.pipeline, "evidence", held)
        asking = [asyncio.create_task(here.caller.infer(clean_images([0])))]
        await until(began.is_set)
        asking += [asyncio.create_task(here.caller.infer(clean_images([0]))) for _ in range(7)]
        await until(lambda: sum(task.done() for task in asking) == 5)
        gate.set()
        outcomes = await asyncio.gather(*asking, return_exceptions=True)
        refused = [o for o in outcomes if isinstance(o, grpc.aio.AioRpcError)]
        assert {failure_of(error)[:2] for error in refused} == {
            ("RESOURCE_EXHAUSTED", "OVERLOADED")
        }
        assert len(outcomes) - len(refused) == 3


async def test_a_flood_on_one_connection_cannot_run_all_at_once(tiny_pack: Path) -> None:
    """Four hundred requests together: never more than max_in_flight are worked on."""
    at_once: list[int] = []

    async with Settings() as settings:
        here = await settings.start(
            tiny_pack, FakeUpstream(delay=0.05), gateway={"max_in_flight": 8}
        )
        whole = here.model.infer

        async def noted(*arguments: Any, **options: Any) -> Any:
            at_once.append(1)
            try:
                return await whole(*arguments, **options)
            finally:
                at_once.append(-1)

        here.model.infer = noted  # type: ignore[method-assign]
        asking = (here.caller.infer(clean_images([0])) for _ in range(400))
        outcomes = await asyncio.gather(*asking, return_exceptions=True)
        failed = {failure_of(o)[0] for o in outcomes if isinstance(o, grpc.aio.AioRpcError)}
        # Over a hundred streams on one connection gRPC itself refuses some: UNAVAILABLE, retry.
        assert failed <= {"RESOURCE_EXHAUSTED", "UNAVAILABLE"}
        assert max(itertools.accumulate(at_once)) <= 8
        assert (await here.caller.infer(clean_images([1]))).outputs["label"].tolist() == [1]
