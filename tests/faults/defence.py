"""The defence itself fails: a member, the detector, the session that runs them."""

from collections.abc import AsyncIterator

from tests.faults.frame import OVERLOADED, Mode, Play, fault
from tests.faults.stage import Stage

FAILED = "INTERNAL DEFENSE_FAILED"
DEFENSE = 'guard_errors_total{reason="defense"}'
LATE = 'guard_errors_total{reason="defense_late"}'
NOT_FINITE = 'guard_errors_total{reason="non_finite"}'
PASSED = "guard_faults_allowed_total"
QUICK_LATE = {"evidence_timeout": 1.0}


def by_word(word: str, *, upstream: bool = False, **settings: object) -> Play:
    """A fault that a word of `breaks.py` makes and another one mends."""

    async def play(stage: Stage) -> AsyncIterator[None]:
        model = dict(settings)
        if upstream:
            model["upstream"] = (await stage.upstream()).address
        gateway = await stage.gateway(breakable=True, model=model)
        yield
        await gateway.say(word)
        yield
        await gateway.say("mend")

    play.__module__ = __name__
    return play


fault(
    "the detector answers NaN", Mode.CLOSED, sees=("INTERNAL NON_FINITE",),
    metric=NOT_FINITE, alert="GuardNumbersNotFinite", quick=True,
)(by_word("detector-nan"))  # fmt: skip
fault(
    'the detector answers NaN, on_error = "allow"', Mode.CLOSED, sees=("INTERNAL NON_FINITE",),
    metric=NOT_FINITE, alert="GuardNumbersNotFinite",
)(by_word("detector-nan", upstream=True, on_error="allow"))  # fmt: skip
fault(
    "the detector's session fails", Mode.CLOSED, sees=(FAILED,),
    metric=DEFENSE, alert="GuardDefenseFails",
)(by_word("detector-raises", upstream=True))  # fmt: skip
fault(
    "a member's probabilities are infinite", Mode.CLOSED, sees=("INTERNAL NON_FINITE",),
    metric=NOT_FINITE, alert="GuardNumbersNotFinite",
)(by_word("member-inf", upstream=True))  # fmt: skip
fault(
    "a member fails in the session", Mode.CLOSED, sees=(FAILED,),
    metric=DEFENSE, alert="GuardDefenseFails",
)(by_word("member-raises", upstream=True))  # fmt: skip
fault(
    'a member fails in the session, on_error = "allow"', Mode.OPEN, sees=("OK ABSTAIN",),
    metric=PASSED, alert="GuardPassesUnexamined", quick=True,
)(by_word("member-raises", upstream=True, on_error="allow"))  # fmt: skip
fault(
    "the evidence has the wrong shape", Mode.CLOSED, sees=(FAILED,),
    metric=DEFENSE, alert="GuardDefenseFails",
)(by_word("evidence-shape"))  # fmt: skip
fault(
    "the defence is slower than evidence_timeout", Mode.CLOSED, sees=(FAILED, OVERLOADED),
    metric=LATE, alert="GuardDefenseFails",
)(by_word("evidence-slow", upstream=True, **QUICK_LATE))  # fmt: skip
fault(
    'the defence is slower than evidence_timeout, on_error = "allow"', Mode.OPEN,
    sees=("OK ABSTAIN", OVERLOADED), metric=PASSED, alert="GuardPassesUnexamined",
)(by_word("evidence-slow", upstream=True, on_error="allow", **QUICK_LATE))  # fmt: skip


@fault(
    "a session run hangs for ever",
    Mode.CLOSED,
    sees=(FAILED, OVERLOADED),
    metric="guard_ready",
    alert="GuardNotReady",
    clears=True,
    quick=True,
)
async def hangs(stage: Stage) -> AsyncIterator[None]:
    """Not ready and not alive, so that whoever supervises it restarts it."""
    gateway = await stage.gateway(breakable=True, model=QUICK_LATE)
    yield
    await gateway.say("evidence-hangs")
    yield
    await stage.dead(gateway)
    await gateway.kill()
    await gateway.start()
