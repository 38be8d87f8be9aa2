"""Which images become suspects, of whom, and that taking them cannot fail a request."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import REGISTRY

from guard.gateway import catch as catching
from guard.gateway.catch import Catch, trace_of
from guard.gateway.identity import CURRENT, Identity
from guard.pipeline import Evidence, Pipeline
from guard.suspects.capture import Capture
from guard.suspects.late import LateStore
from guard.testing import clean_images, suspicious_images
from guard.verdict import Decision, Verdicts
from tests.gateway.setting import counted, until
from tests.suspects.shelf import Shelf

ALICE = Identity("jwt:alice", frozenset(["client"]), "blue", "token", "blue")
IMAGES = np.concatenate([clean_images([0]), suspicious_images([1, 2])])
NOBODY = np.zeros(3, np.bool_)
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Here:
    """A catch into a shelf, and what a request of three images is to it."""

    def __init__(self, pipeline: Pipeline, *, rate: float = 0.0, room: int = 100) -> None:
        self.shelf = Shelf()
        self.store = LateStore(lambda: self.shelf)
        self.store.opened()
        self.capture = Capture(self.store, max_queue=room, max_bytes=1 << 24)
        self.catch = Catch(
            self.capture, self.store, model="m", pipeline=pipeline, budget=0.01, sample_rate=rate
        )
        self.evidence: Evidence = pipeline.evidence(IMAGES)
        self.verdicts: Verdicts = pipeline.judge(self.evidence)

    async def take(self, evidence: Evidence | None = None, **options: object) -> list[str]:
        """The ids of the request's images."""
        drawn = options.get("drawn", NOBODY)
        answer = np.eye(3, dtype=np.float32)
        seen = evidence or self.evidence
        taken = await self.catch.take(IMAGES, drawn, seen, self.verdicts, answer)  # type: ignore[arg-type]
        await until(lambda: not self.capture.waiting)
        return list(taken)


@pytest.fixture(scope="module")
def pipeline(tiny_pack: Path) -> Pipeline:
    """One tiny pipeline."""
    return Pipeline.load(tiny_pack)


@pytest.fixture
def here(pipeline: Pipeline) -> Iterator[Here]:
    """A catch, closed afterwards."""
    setting = Here(pipeline)
    yield setting
    setting.capture.close()


async def test_a_suspect_is_its_senders_and_its_tenants(here: Here) -> None:
    """The pseudonym of the caller's name and the tenant that its grant names; never the name."""
    CURRENT.set(ALICE)
    assert [bool(one) for one in await here.take()] == [False, True, True]
    for one in here.shelf.kept:
        assert (one.client, one.tenant) == (here.shelf.pseudonym("jwt:alice"), "blue")
        assert "alice" not in repr(one)
    assert [one.image.tobytes() for one in here.shelf.kept] == [x.tobytes() for x in IMAGES[1:]]
    assert all(one.image.base is None for one in here.shelf.kept)


async def test_a_part_of_a_run_remembers_its_place(here: Here) -> None:
    """Evidence and verdicts that were cut out of larger runs: the replay needs where from."""
    joined = Evidence(
        np.concatenate([here.evidence.rows] * 2),
        np.concatenate([here.evidence.probabilities] * 2),
        np.concatenate([here.evidence.noise_index] * 2),
    )
    await here.take(joined.slice(3, 6))
    assert [one.place for one in here.shelf.kept] == [(4, 6), (5, 6)]
    assert [one.judged for one in here.shelf.kept] == [(1, 3), (2, 3)]


async def test_what_nothing_examined_is_not_kept(here: Here) -> None:
    """ABSTAIN has no evidence: a drawn image of that kind is counted and gone."""
    before = counted("guard_suspects_dropped_total", reason="unusable")
    here.verdicts.decisions[:] = Decision.ABSTAIN
    ids = await here.catch.take(IMAGES, ~NOBODY, None, here.verdicts, None)
    assert not any(ids)
    assert counted("guard_suspects_dropped_total", reason="unusable") == before + 3
    assert not here.shelf.kept


async def test_large_requests_are_hashed_off_the_loop(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same suspects of the same sender, from a thread."""
    CURRENT.set(ALICE)
    monkeypatch.setattr(catching, "INLINE_BYTES", 1)
    assert [bool(one) for one in await here.take()] == [False, True, True]
    assert {one.tenant for one in here.shelf.kept} == {"blue"}


async def test_taking_never_fails(
    here: Here, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever breaks costs suspects, counted, and says no more than its kind."""
    before = counted("guard_suspects_dropped_total", reason="error")

    def broken(_name: str) -> str:
        raise RuntimeError("canary")

    monkeypatch.setattr(here.catch, "_pseudonym", broken)
    with caplog.at_level(logging.ERROR):
        assert await here.take() == []
    assert counted("guard_suspects_dropped_total", reason="error") == before + 2
    assert ("RuntimeError" in caplog.text, "canary" in caplog.text) == (True, False)


async def test_an_id_is_told_only_of_what_found_a_place(pipeline: Pipeline) -> None:
    """With room for one, the second alarm is dropped and has no id."""
    here = Here(pipeline, room=1)
    assert [bool(one) for one in await here.take()] == [False, True, False]
    here.capture.close()
    assert len(here.shelf.kept) == 1


def test_the_draw_has_its_rate(pipeline: Pipeline) -> None:
    """Of 200,000 images about one in a hundred, whatever they are; none at rate 0."""
    here = Here(pipeline, rate=0.01)
    before = counted("guard_suspects_sampled_total", model="m")
    drawn = sum(int(here.catch.draw(1000).sum()) for _ in range(200))
    assert 1700 < drawn < 2300
    assert counted("guard_suspects_sampled_total", model="m") == before + drawn
    assert not Here(pipeline).catch.draw(1000).any()


async def test_each_reason_is_counted(pipeline: Pipeline) -> None:
    """Flagged for what it is, drawn where it is not; all counters are there from the start."""
    here = Here(pipeline, rate=1.0)
    names = ("flagged", "blocked", "sampled")
    before = [counted("guard_suspects_captured_total", model="m", why=why) for why in names]
    never = {"model": "m", "why": "blocked"}
    assert REGISTRY.get_sample_value("guard_suspects_captured_total", never) is not None
    await here.take(drawn=~NOBODY)
    here.verdicts.decisions[1] = Decision.BLOCK
    await here.take(drawn=NOBODY)
    after = [counted("guard_suspects_captured_total", model="m", why=why) for why in names]
    assert [one - two for one, two in zip(after, before, strict=True)] == [3, 1, 1]
    kept = here.shelf.kept
    assert [one.sampled for one in kept] == [True] * 3 + [False] * 2
    answers = [one.upstream.tolist() for one in kept[:3] if one.upstream is not None]
    assert answers == np.eye(3).tolist()
    assert kept[0].engine.endswith("CPUExecutionProvider")
    here.capture.close()


async def test_before_the_store_is_open_all_is_dropped(pipeline: Pipeline) -> None:
    """Nobody waits for it in a request: counted, and no id."""
    here = Here(pipeline)
    before = counted("guard_suspects_dropped_total", reason="store")
    here.store._store = None
    assert not any(await here.take())
    assert counted("guard_suspects_dropped_total", reason="store") == before + 2
    assert not here.shelf.kept
    here.store._store = here.shelf
    here.capture.close()


@pytest.mark.parametrize(
    ("header", "trace"),
    [
        (f"00-{TRACE}-00f067aa0ba902b7-01", TRACE),
        (f"00-{TRACE.upper()}-00f067aa0ba902b7-01", ""),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", ""),
        (f"00-{TRACE}-00f067aa0ba902b7-01-alice", ""),
        ("alice@example.test", ""),
        ("", ""),
    ],
)
def test_only_a_trace_id_is_taken_from_a_header(header: str, trace: str) -> None:
    """32 hexadecimal digits of a well-formed traceparent; anything else is nothing."""
    assert trace_of((("x", "y"), ("traceparent", header))) == trace
