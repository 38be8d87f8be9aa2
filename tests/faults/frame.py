"""The frame of every fault: healthy, silent, broken, observed, mended, recovered; or it fails.

A fault is an async generator over a `Stage`. It sets up and yields, breaks something and yields,
mends it and ends. Between the yields this file looks at what clients, metrics and alerts say.
"""

import asyncio
import enum
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from tests.faults.prometheus import SECONDS
from tests.faults.stage import House, Stage

HEALTHY_SECONDS, RECOVERY_SECONDS = 40.0, 30.0
ENOUGH, LEAST_SECONDS = 8, 1.0  # answers and time that say how clients see a fault
SCRAPES = 3  # before anything is broken, so that alerts had their chance
FAULTS: list["Fault"] = []
OVERLOADED = "RESOURCE_EXHAUSTED OVERLOADED"  # also where an answer would come too late
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

    sees: what clients may see while it lasts, the first of them (partly: each) at least once.
    metric: a selector whose sum must change. alert: one of `guard.rules.yml`.
    """

    name: str
    mode: Mode
    sees: tuple[str, ...]
    metric: str
    alert: str
    play: Play
    after: bool = False  # metric and alert tell of the end of the fault, and are looked at then
    clears: bool = False  # recovered means that the alert's expression is false again, too
    secure: bool = False  # TLS, certificates and tokens
    quick: bool = False  # in `make test`
    needs: Callable[[], str] = str  # what this machine lacks, empty: nothing
    patience: float = 60.0  # seconds for clients, metric and alert


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


async def run(one: Fault, house: House) -> Result:
    """Play one fault from beginning to end."""
    result = Result(one)
    step = ["set up"]
    try:
        async with Stage(house.slots[one.name], house.pack, house.prometheus) as stage:
            try:
                await _play(one, stage, result, step)
            except TimeoutError:
                raise AssertionError(await _state(stage)) from None
    except Exception as error:  # whatever it is, it is the result
        result.wrong.append(f"{step[-1]}: {type(error).__name__}: {error}")
    return result


async def _state(stage: Stage) -> str:
    """How things are when something did not come in time."""
    recent = stage.traffic.samples[-10:] if stage.traffic else []
    seen = sorted({sample.outcome for sample in recent})
    return f"not in time; clients see {seen}, on are {sorted(await stage.alerts())}"


async def _play(one: Fault, stage: Stage, result: Result, step: list[str]) -> None:
    acts = one.play(stage)
    await anext(acts)
    step.append("healthy")
    await _healthy(stage, result)
    step.append("breaking")
    began = time.monotonic()
    await anext(acts)
    step.append("broken")
    await _observe(one, stage, result, began)
    step.append("mending")
    mending = time.monotonic()
    async for _ in acts:
        raise AssertionError("a fault yields twice")
    step.append("recovering")
    await _recover(one, stage, result, mending)
    if one.after:
        step.append("afterwards")
        await _metric_and_alert(one, stage, result, began)


async def _healthy(stage: Stage, result: Result) -> None:
    """Everybody is answered and no alert is on, or the fault cannot be what set it off."""
    traffic = stage.traffic or await stage.calls()
    began = time.monotonic()
    async with asyncio.timeout(HEALTHY_SECONDS):
        await traffic.recovered(began)
        quiet = time.monotonic()
        while time.monotonic() - quiet < SCRAPES * SECONDS:
            if await stage.value("up") != len(stage.gateways) or await stage.alerts():
                quiet = time.monotonic()
            await asyncio.sleep(0.1)
        while (before := await stage.value(result.fault.metric)) is None:
            await asyncio.sleep(0.1)
    result.before = before


async def _observe(one: Fault, stage: Stage, result: Result, began: float) -> None:
    assert stage.traffic is not None
    broken = time.monotonic()
    async with asyncio.timeout(one.patience):
        while not _enough(stage.traffic.outcomes(broken), one):
            await asyncio.sleep(0.05)
        if not one.after:
            await _metric_and_alert(one, stage, result, began)
        await asyncio.sleep(max(0.0, broken + LEAST_SECONDS - time.monotonic()))
    result.outcomes = seen = stage.traffic.outcomes(broken)
    if odd := set(seen) - set(one.sees):
        result.wrong.append(f"clients saw {sorted(odd)}")
    answered = {outcome.split()[0] == "OK" for outcome in seen}
    unexamined = any(outcome.startswith("OK ") for outcome in seen)
    as_said = {
        Mode.CLOSED: answered == {False},
        Mode.OPEN: unexamined,
        Mode.GOES_ON: answered == {True} and not unexamined,
        Mode.PARTLY: answered == {True, False} and not unexamined,
    }
    if not as_said[one.mode]:
        result.wrong.append(f"not {one.mode.value}: {dict(seen)}")


def _enough(seen: Counter[str], one: Fault) -> bool:
    wanted = one.sees if one.mode is Mode.PARTLY else one.sees[:1]
    return seen.total() >= ENOUGH and all(seen[outcome] for outcome in wanted)


async def _metric_and_alert(one: Fault, stage: Stage, result: Result, began: float) -> None:
    async with asyncio.timeout(one.patience):
        while one.alert not in await stage.alerts():
            await asyncio.sleep(0.1)
        result.alert_after = time.monotonic() - began
        while (value := await stage.value(one.metric)) in (None, result.before):
            await asyncio.sleep(0.1)
        result.then = value


async def _recover(one: Fault, stage: Stage, result: Result, mending: float) -> None:
    assert stage.traffic is not None
    async with asyncio.timeout(RECOVERY_SECONDS):
        result.recovery = await stage.traffic.recovered(mending)
        if one.clears:
            while one.alert in await stage.alerts():
                await asyncio.sleep(0.1)
            result.recovery = max(result.recovery, time.monotonic() - mending)
