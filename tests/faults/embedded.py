"""A production classifier in a file, run in the gateway's own process."""

from collections.abc import AsyncIterator

from guard.testing import classifier_onnx
from tests.faults.frame import OVERLOADED, Mode, Play, fault
from tests.faults.stage import Stage
from tests.faults.upstream import ALERT, FAILS


def embedded(word: str) -> Play:
    """A fault of the embedded classifier."""

    async def play(stage: Stage) -> AsyncIterator[None]:
        path = stage.folder / "production.onnx"
        path.write_bytes(classifier_onnx())
        model = {"upstream": f"onnx:{path}", "upstream_timeout": 1.0}
        gateway = await stage.gateway(breakable=True, model=model)
        yield
        await gateway.say(word)
        yield
        await gateway.say("mend")

    play.__module__ = __name__
    return play


fault(
    "the embedded classifier fails", Mode.CLOSED, sees=("INTERNAL UPSTREAM",),
    metric=FAILS("INTERNAL"), alert=ALERT,
)(embedded("embedded-raises"))  # fmt: skip
fault(
    "the embedded classifier hangs", Mode.CLOSED, sees=("DEADLINE_EXCEEDED UPSTREAM", OVERLOADED),
    metric=FAILS("DEADLINE_EXCEEDED"), alert=ALERT,
)(embedded("embedded-hangs"))  # fmt: skip
