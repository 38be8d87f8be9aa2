"""The production classifier fails, or says what cannot be read."""

from collections.abc import AsyncIterator

from tests.faults.frame import Mode, fault
from tests.faults.stage import Stage

FAILS = 'guard_upstream_errors_total{code="%s"}'


@fault(
    "the upstream is killed",
    Mode.CLOSED,
    sees=("UNAVAILABLE UPSTREAM",),
    metric=FAILS % "UNAVAILABLE",
    alert="GuardUpstreamFails",
    quick=True,
)
async def upstream_killed(stage: Stage) -> AsyncIterator[None]:
    """No connection: refused at once, found again when it is back."""
    upstream = await stage.upstream()
    await stage.gateway(model={"upstream": upstream.address})
    yield
    await upstream.__aexit__(None, None, None)
    yield
    await upstream.__aenter__()
