"""The frame of every fault: healthy, silent, broken, observed, mended, recovered; or it fails.

A fault is an async generator over a `Stage`. It sets up and yields, breaks something and yields,
mends it and ends. Between the yields this file looks at what clients, metrics and alerts say.
"""

import asyncio
import enum
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from guard.testing import make_pack
from tests.faults.stage import Stage

HEALTHY_SECONDS, BROKEN_SECONDS, RECOVERY_SECONDS = 20.0, 60.0, 30.0
ENOUGH = 8  # answers that say how clients see a fault
FAULTS: list["Fault"] = []
Play = Callable[[Stage], AsyncIterator[None]]


class Mode(enum.Enum):
    """What the gateway does while a fault lasts."""

    CLOSED = "closed"  # nobody is answered
    OPEN = "open"  # answers that nobody examined, because the settings say so
    GOES_ON = "goes on"  # everybody is answered, everything is examined
    PARTLY = "partly"  # some are refused, the others answered and examined


@dataclass(frozen=True)
class Fault:
    """One row of the matrix.

    sees: what clients may see while it lasts, the first of them at least once. metric: a selector
    whose sum must change. alert: of `guard.rules.yml`. after: metric and alert are looked at once
    it is over, because they tell of its end.
    """

    name: str
    mode: Mode
    sees: tuple[str, ...]
    metric: str
    alert: str
    play: Play
    after: bool = False
    quick: bool = False  # in `make test`
    needs: Callable[[], str] = str  # what this machine lacks, empty: nothing


@dataclass
class Result:
    """What a fault did; `wrong` is empty where that was what it should do."""

    fault: Fault
    outcomes: Counter[str] = field(default_factory=Counter)
    before: float | None = None
    then: float | None = None
    alert_after: float | None = None
    recovery: float | None = None
    wrong: list[str] = field(default_factory=list)


def fault(
    name: str, mode: Mode, *, sees: tuple[str, ...], metric: str, alert: str, **more: object
) -> Callable[[Play], Play]:
    """Enter a fault into the matrix."""

    def enter(play: Play) -> Play:
        FAULTS.append(Fault(name, mode, sees, metric, alert, play, **more))  # type: ignore[arg-type]
        return play

    return enter


async def run(one: Fault) -> Result:
    """Play one fault from beginning to end, on a stage of its own."""
    result = Result(one)
    with tempfile.TemporaryDirectory(prefix="guard-fault-") as name:
        folder = Path(name)
        try:
            async with Stage(folder, make_pack(folder / "tiny")) as stage:
                await _play(one, stage, result)
        except TimeoutError:
            result.wrong.append("did not come in time")
        except Exception as error:
            result.wrong.append(f"{type(error).__name__}: {error}")
    return result


async def _play(one: Fault, stage: Stage, result: Result) -> None:
    acts = one.play(stage)
    await anext(acts)
    await _healthy(stage, result)
    await anext(acts)
    broken = time.monotonic()
    await _observe(one, stage, result, broken)
    mending = time.monotonic()
    async for _ in acts:
        raise AssertionError("a fault yields twice")
    async with asyncio.timeout(RECOVERY_SECONDS):
        result.recovery = await stage.traffic.recovered(mending)
    if one.after:
        await _metric_and_alert(one, stage, result, broken)


async def _healthy(stage: Stage, result: Result) -> None:
    """Everybody is answered and no alert is on, or the fault cannot be what set it off."""
    if not hasattr(stage, "traffic"):
        await stage.watch()
    began, prometheus = time.monotonic(), stage.prometheus
    async with asyncio.timeout(HEALTHY_SECONDS):
        await stage.traffic.recovered(began)
        up = len(stage.gateways)
        while await prometheus.value("up") != up or await prometheus.alerts():
            await asyncio.sleep(0.1)
        while await prometheus.value("min(count_over_time(up[1m]))") in (None, 1, 2):
            await asyncio.sleep(0.1)
    result.before = await prometheus.value(result.fault.metric)
    if alerts := await prometheus.alerts():
        result.wrong.append(f"{alerts} before anything was broken")


async def _observe(one: Fault, stage: Stage, result: Result, broken: float) -> None:
    async with asyncio.timeout(BROKEN_SECONDS):
        while (seen := stage.traffic.outcomes(broken)).total() < ENOUGH or not seen[one.sees[0]]:
            await asyncio.sleep(0.05)
        if not one.after:
            await _metric_and_alert(one, stage, result, broken)
    result.outcomes = stage.traffic.outcomes(broken)
    if odd := set(result.outcomes) - set(one.sees):
        result.wrong.append(f"clients saw {sorted(odd)}")
    answered = {outcome.split()[0] == "OK" for outcome in result.outcomes}
    unexamined = any(outcome.startswith("OK ") for outcome in result.outcomes)
    as_said = {
        Mode.CLOSED: answered == {False},
        Mode.OPEN: unexamined,
        Mode.GOES_ON: answered == {True} and not unexamined,
        Mode.PARTLY: answered == {True, False} and not unexamined,
    }
    if not as_said[one.mode]:
        result.wrong.append(f"not {one.mode.value}: {dict(result.outcomes)}")


async def _metric_and_alert(one: Fault, stage: Stage, result: Result, broken: float) -> None:
    async with asyncio.timeout(BROKEN_SECONDS):
        while one.alert not in await stage.prometheus.alerts():
            await asyncio.sleep(0.1)
        result.alert_after = time.monotonic() - broken
        while (value := await stage.prometheus.value(one.metric)) in (None, result.before):
            await asyncio.sleep(0.1)
        result.then = value
