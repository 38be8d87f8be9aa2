"""The gateway's process dies, hangs, or finds something missing when it starts again."""

import signal
from collections.abc import AsyncIterator

from tests.faults.frame import Mode, fault
from tests.faults.stage import Stage


@fault(
    "the gateway is killed (kill -9)",
    Mode.CLOSED,
    sees=("UNAVAILABLE",),
    metric="up",
    alert="GuardDown",
    quick=True,
)
async def killed(stage: Stage) -> AsyncIterator[None]:
    """No state is needed to start again."""
    gateway = await stage.gateway()
    yield
    gateway.signal(signal.SIGKILL)
    await gateway.gone()
    yield
    await gateway.start()
