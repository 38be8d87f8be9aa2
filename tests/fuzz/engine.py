"""One target in one process: change inputs, keep those that did something new, report findings.

New is what ends at a place of guard where none ended before: the lines that an error went
through, or the shape of an answer. That is less than coverage and costs a microsecond.
"""

import random
import resource
import time
import traceback
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.mutate import mutate
from tests.fuzz.target import Finding, Target

SLOW = 1.0  # seconds that no input may take
TRIES = 3  # a busy machine makes slow what is not: the quickest of so many counts
KEPT = 4000  # inputs that did something new
MEMORY, FACTOR = 32 << 20, 100  # what one input may cost: so much, or so many times its bytes
GUARD = str(Path(__file__).parents[2] / "guard")
KINDS = ("crash", "hang", "wrong", "internal", "leak", "memory")


@dataclass
class Tally:
    """What a run saw."""

    executions: int = 0
    accepted: int = 0  # of them, that were not refused
    seconds: float = 0.0
    slowest: float = 0.0
    seen: set[Hashable] = field(default_factory=set)
    findings: Counter[str] = field(default_factory=Counter)
    inputs: dict[str, tuple[bytes, str]] = field(default_factory=dict)  # by key: one each


class Refused(tuple[Hashable, ...]):
    """What happened was a documented error; the lines of guard that it came through."""

    __slots__ = ()


def where(error: BaseException) -> Refused:
    """The lines of guard that an error came through, and of what caused it."""
    lines: list[Hashable] = [type(error).__name__]
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.startswith(GUARD):
            lines.append((trace.tb_frame.f_code.co_filename[len(GUARD) :], trace.tb_lineno))
        trace = trace.tb_next
    if error.__cause__ is not None:
        lines.append(type(error.__cause__).__name__)
    lines.append(getattr(error, "cause", None))  # what was wrong with a caller
    return Refused(lines)


def attempt(target: Target, data: bytes) -> Hashable:
    """One execution: what happened, or a `Finding`."""
    try:
        return target.run(data)
    except Finding:
        raise
    except target.errors as error:
        if target.strict:
            target.check_reply(str(error), data)
        return where(error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        place = where(error)[-2:]
        frame = traceback.extract_tb(error.__traceback__)[-1:]
        at = f"{frame[0].name}:{frame[0].lineno}" if frame else ""
        text = f"{type(error).__name__} {place} {at}: {str(error)[:300]}"
        raise Finding("crash", text) from error


def judged(target: Target, data: bytes) -> tuple[Hashable, float]:
    """What happened and the seconds it took; `Finding` too for a hang and for memory."""
    before, start = _peak(), time.perf_counter()
    seen = attempt(target, data)
    seconds = time.perf_counter() - start
    if seconds > SLOW / 4:
        seconds = min(seconds, *(_timed(target, data) for _ in range(TRIES - 1)))
        if seconds > SLOW:
            raise Finding("hang", f"{seconds:.1f} seconds")
    if _peak() - before > max(MEMORY, FACTOR * len(data)):
        cost = min(_cost(target, data) for _ in range(TRIES))
        if cost > max(MEMORY, FACTOR * len(data)):
            raise Finding("memory", f"{len(data)} bytes cost {cost >> 20} MiB")
    return seen, seconds


def fuzz(
    target: Target,
    executions: int,
    *,
    seed: int = 0,
    about_to: Callable[[bytes], None] = lambda _data: None,
    progress: Callable[[Tally], None] = lambda _tally: None,
) -> Tally:
    """Run a target so many times. about_to: hears every input before it is tried."""
    rng, tally = random.Random(seed), Tally()
    first = target.corpus
    pool = list(first)
    start, told = time.monotonic(), time.monotonic()
    for index in range(executions):
        data = first[index] if index < len(first) else _next(target, pool, rng)
        about_to(data)
        try:
            seen, seconds = judged(target, data)
            tally.slowest = max(tally.slowest, seconds)
            tally.accepted += not isinstance(seen, Refused)
            if seen not in tally.seen and len(tally.seen) < KEPT:
                tally.seen.add(seen)
                pool.append(data)
        except Finding as found:
            note(tally, target, found, data)
        tally.executions += 1
        if not index % 64 and time.monotonic() - told > 1:
            told, tally.seconds = time.monotonic(), time.monotonic() - start
            progress(tally)
    tally.seconds = time.monotonic() - start
    return tally


def _next(target: Target, pool: Sequence[bytes], rng: random.Random) -> bytes:
    # Good inputs lead deepest, the newest are the least explored.
    choice = rng.random()
    if choice < 0.4:
        data = pool[rng.randrange(min(target.good, len(pool)))]
    else:
        data = pool[-1 - rng.randrange(min(64, len(pool)))] if choice < 0.7 else rng.choice(pool)
    if rng.random() < target.structured:
        changed = target.mutate(data, rng)
        if changed is not None:
            return changed
    return mutate(data, rng, target.words, pool)


def note(tally: Tally, target: Target, found: Finding, data: bytes) -> None:
    """Count a finding, and keep the first input of its kind, made smaller."""
    tally.findings[found.kind] += 1
    key = f"{found.kind}: {_key(str(found))}"
    if key not in tally.inputs and len(tally.inputs) < 50:
        small = _smaller(target, found, data)
        tally.inputs[key] = (small, str(found))


def _key(text: str) -> str:
    """Findings of one cause look alike without their numbers."""
    return "".join("#" if letter.isdigit() else letter for letter in text)[:80]


def _smaller(target: Target, found: Finding, data: bytes) -> bytes:
    """The same finding from fewer bytes, if a few hundred tries find some."""
    if found.kind in ("hang", "memory"):
        return data
    step, tries, key = max(1, len(data) // 2), 0, _key(str(found))[:40]
    while step and tries < 400:
        at = 0
        while at < len(data) and tries < 400:
            shorter = data[:at] + data[at + step :]
            tries += 1
            if _found(target, shorter) == (found.kind, key):
                data = shorter
            else:
                at += step
        step //= 2
    return data


def _found(target: Target, data: bytes) -> tuple[str, str]:
    try:
        attempt(target, data)
    except Finding as found:
        return found.kind, _key(str(found))[:40]
    return "", ""


def _timed(target: Target, data: bytes) -> float:
    start = time.perf_counter()
    attempt(target, data)
    return time.perf_counter() - start


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _cost(target: Target, data: bytes) -> int:
    """Bytes by which the process grows at most while it works on this input."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    attempt(target, data)
    return _status("VmHWM") - before


def _status(field_: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field_):
            return int(line.split()[1]) << 10
    raise AssertionError(field_)
