"""The wire between the gateway and its upstream."""

from collections.abc import AsyncIterator

from tests.faults.frame import OVERLOADED, Mode, Play, fault
from tests.faults.proxy import Proxy, Way
from tests.faults.stage import Stage
from tests.faults.upstream import ALERT, FAILS, READS

DEADLINE = "DEADLINE_EXCEEDED UPSTREAM"
UNAVAILABLE = "UNAVAILABLE UPSTREAM"


def wire(way: Way) -> Play:
    """A fault of the wire, which lets everything through again afterwards."""

    async def play(stage: Stage) -> AsyncIterator[None]:
        upstream = await stage.upstream()
        proxy = await stage.enter_async_context(Proxy(upstream.port, delay=2.0))
        address = f"grpc://127.0.0.1:{proxy.port}"
        await stage.gateway(model={"upstream": address, "upstream_timeout": 1.0, **READS})
        yield
        proxy.go(way)
        yield
        proxy.go("through")

    play.__module__ = __name__
    return play


fault(
    "connections to the upstream are reset", Mode.CLOSED, sees=(UNAVAILABLE,),
    metric=FAILS("UNAVAILABLE"), alert=ALERT,
)(wire("reset"))  # fmt: skip
fault(
    "the network to the upstream swallows everything (partition)", Mode.CLOSED,
    sees=(DEADLINE, OVERLOADED), metric=FAILS("DEADLINE_EXCEEDED"), alert=ALERT,
)(wire("swallow"))  # fmt: skip
fault(
    "what comes from the upstream is noise, not HTTP/2", Mode.CLOSED,
    sees=(UNAVAILABLE, "UNKNOWN UPSTREAM", DEADLINE, OVERLOADED), metric=FAILS("UNAVAILABLE"),
    alert=ALERT,
)(wire("garble"))  # fmt: skip
fault(
    "the network from the upstream is slower than upstream_timeout", Mode.CLOSED,
    sees=(DEADLINE, OVERLOADED), metric=FAILS("DEADLINE_EXCEEDED"), alert=ALERT,
)(wire("slow"))  # fmt: skip
