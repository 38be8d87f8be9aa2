"""More is asked than can be done."""

from collections.abc import AsyncIterator

from tests.faults.frame import OVERLOADED, Mode, fault
from tests.faults.stage import Stage


@fault(
    "the defence is too slow for what is asked",
    Mode.PARTLY,
    sees=(OVERLOADED, "OK"),
    metric='guard_errors_total{reason="overloaded"}',
    alert="GuardOverloaded",
)
async def overload(stage: Stage) -> AsyncIterator[None]:
    """Some are refused at once, with a time to come back; the others are answered."""
    gateway = await stage.gateway(breakable=True, max_in_flight=2)
    yield
    await gateway.say("evidence-slow")
    yield
    await gateway.say("mend")
