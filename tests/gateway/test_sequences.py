"""Sequences of queries through a live gateway: what is counted, what the attacker is told."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guard.config.queries import Queries
from guard.gateway import sequences
from guard.testing import SHAPE, FakeUpstream, clean_images
from tests.gateway.setting import Settings, counted, until

WATCH = {"watch": True, "alarm": 4, "reach": 0.1, "stretched_reach": 0.01}
ENFORCE = {"mode": "enforce", "on_flag": "annotate"}


def near(count: int, label: int = 0) -> np.ndarray:  # type: ignore[type-arg]
    """Pictures of one colour under noise too weak to be suspicious by itself."""
    random = np.random.default_rng(0)
    noise = random.uniform(-0.02, 0.02, (count, *SHAPE)).astype(np.float32)
    return clean_images([label] * count) + noise


def turning() -> FakeUpstream:
    """A classifier whose answer depends on how often it was asked: 0, 1, 2, 0 ..."""
    asked = iter(range(1000))

    def answer(inputs: Any) -> Any:
        labels = [next(asked) % 3 for _ in inputs["images"]]
        return {"probabilities": np.eye(3, dtype=np.float32)[labels]}

    return FakeUpstream(answer)


def attacks() -> float:
    """Queries counted as attacks."""
    return counted("guard_query_attack_total", model="tiny")


async def ask(here: Any, images: Any) -> list[int]:
    """The classes answered, one request per image."""
    answers = [await here.caller.infer(image[None]) for image in images]
    return [int(answer.outputs["probabilities"].argmax()) for answer in answers]


async def test_an_attack_is_answered_what_its_first_query_was(tiny_pack: Path) -> None:
    """From the alarm on the classifier's own answers no longer reach the attacker."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack, turning(), queries=Queries(**WATCH), **ENFORCE)
        before = attacks()
        assert await ask(here, near(8)) == [0, 1, 2, 0, 0, 0, 0, 0]
        assert attacks() - before == 5
        assert await ask(here, clean_images([1])) == [2]


async def test_a_batch_is_a_sequence_too(tiny_pack: Path) -> None:
    """Queries of one request count like those of many, row by row."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack, turning(), queries=Queries(**WATCH), **ENFORCE)
        first = await here.caller.infer(near(1))
        assert first.outputs["probabilities"].argmax() == 0
        answer = await here.caller.infer(np.concatenate([near(5)[1:], clean_images([2])]))
        labels = answer.outputs["probabilities"].argmax(1).tolist()
        assert labels == [1, 2, 0, 0, 2]  # the third and fourth of these are the first's


@pytest.mark.parametrize("mode", ["monitor", "alert"])
async def test_watching_changes_no_answer(tiny_pack: Path, mode: str) -> None:
    """Under monitor, and where an alert is all that is asked for, the upstream answers."""
    policy = ENFORCE if mode == "alert" else {"mode": "monitor"}
    action = Queries(**WATCH, on_attack="alert" if mode == "alert" else "block")
    async with Settings() as settings:
        here = await settings.start(tiny_pack, turning(), queries=action, **policy)
        before = attacks()
        assert await ask(here, near(6)) == [0, 1, 2, 0, 1, 2]
        assert attacks() - before == 3


async def test_block_refuses(tiny_pack: Path) -> None:
    """Where the policy says so the attacker is told."""
    async with Settings() as settings:
        here = await settings.start(
            tiny_pack, queries=Queries(**WATCH, on_attack="block"), **ENFORCE
        )
        await ask(here, near(3))
        status, reason, _ = await here.caller.refused(near(4)[3:])
        assert (status, reason) == ("FAILED_PRECONDITION", "ADVERSARIAL_INPUT")


async def test_retries_are_answered_for_ever(tiny_pack: Path) -> None:
    """The same picture twenty times is honest, and gets the classifier's own answers."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack, turning(), queries=Queries(**WATCH), **ENFORCE)
        before = attacks()
        assert await ask(here, near(1).repeat(20, axis=0)) == [n % 3 for n in range(20)]
        assert attacks() == before


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A watch that always fails."""

    def fail(*_: object) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(sequences.QueryWatch, "look", fail)
    yield


@pytest.mark.usefixtures("broken")
async def test_a_watch_that_fails_fails_no_request(tiny_pack: Path) -> None:
    """It is counted, and the answers are the classifier's."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack, turning(), queries=Queries(**WATCH), **ENFORCE)
        before = counted("guard_errors_total", reason="queries")
        assert await ask(here, near(6)) == [0, 1, 2, 0, 1, 2]
        assert counted("guard_errors_total", reason="queries") - before == 6


async def test_off_is_off(tiny_pack: Path) -> None:
    """Without the setting nothing is remembered."""
    async with Settings() as settings:
        here = await settings.start(tiny_pack, turning(), **ENFORCE)
        before = attacks()
        await ask(here, near(6))
        await until(lambda: here.model.tally.images == 6)
        assert attacks() == before
