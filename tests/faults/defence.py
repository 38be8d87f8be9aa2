"""The defence itself fails: a member, the detector, the session that runs them."""

from collections.abc import AsyncIterator

from tests.faults.frame import Mode, fault
from tests.faults.stage import Stage


@fault(
    "the detector answers NaN",
    Mode.CLOSED,
    sees=("INTERNAL NON_FINITE",),
    metric='guard_errors_total{reason="non_finite"}',
    alert="GuardNumbersNotFinite",
    quick=True,
)
async def detector_nan(stage: Stage) -> AsyncIterator[None]:
    """A number that is not finite passes under no policy."""
    gateway = await stage.gateway(breakable=True)
    yield
    await gateway.say("detector-nan")
    yield
    await gateway.say("mend")
