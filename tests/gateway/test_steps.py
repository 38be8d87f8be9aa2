"""The desk's steps: bounded time, and a record of what nobody waits for any more."""

import asyncio
import threading
from typing import Any

import pytest

from guard.errors import GuardError, OverloadedError, StoreError
from guard.gateway import desk as desk_module
from guard.gateway import steps
from guard.gateway.desk import Desk
from guard.suspects.record import Filter
from guard.suspects.suspect_store import SuspectStore
from tests.gateway.shelf import Notes, filled, person

ANA, PRIVACY = person("ana", "analyst"), person("pia", "privacy")
RED = Filter(predicted=0)


async def test_a_store_that_hangs_holds_up_few(store: SuspectStore) -> None:
    """Who waits gets StoreError in time, who comes later OverloadedError, and it recovers."""
    release = threading.Event()

    class Slow:
        def counts(self, _wanted: Filter) -> Any:
            release.wait(10)
            return store.counts()

    desk = Desk(Slow(), seconds=0.2)  # type: ignore[arg-type]
    asks = [desk.counts(ANA) for _ in range(steps.THREADS + steps.WAITING + 5)]
    ended = await asyncio.gather(*asks, return_exceptions=True)
    kinds = [type(one) for one in ended]
    assert kinds.count(OverloadedError) == 5
    assert kinds.count(StoreError) == len(kinds) - 5
    release.set()
    async with asyncio.timeout(5):
        while True:
            try:
                assert (await desk.counts(ANA)).total == 0
                break
            except GuardError:
                await asyncio.sleep(0.02)
    desk.close()
    with pytest.raises(StoreError):
        await desk.counts(ANA)


async def test_an_erasure_that_nobody_waits_for_is_on_record(
    store: SuspectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asked may give up; how many were erased is recorded when it is done."""
    release, notes = threading.Event(), Notes()
    filled(store, 3)

    class Slow:
        def erase(self, wanted: Filter) -> int:
            release.wait(10)
            return store.erase(wanted)

    monkeypatch.setattr(desk_module, "LONG_SECONDS", 0.05)
    desk = Desk(Slow(), notes)  # type: ignore[arg-type]
    with pytest.raises(StoreError):
        await desk.erase(PRIVACY, RED)
    release.set()
    async with asyncio.timeout(5):
        while "erased" not in notes.lines[-1][3]:
            await asyncio.sleep(0.01)
    outcomes = [(event, outcome) for event, _, outcome, _ in notes.lines]
    erase = "suspect.erase"
    assert outcomes == [(erase, "ok"), (erase, "UNAVAILABLE"), (erase, "ok")]
    assert notes.lines[-1][3]["erased"] == 1
    desk.close()
