"""What a run of the defence says of images, and the promise of it that a request waits for."""

import asyncio
from dataclasses import dataclass

from guard.gateway.judge import part
from guard.gateway.status import LateDefenseError
from guard.pipeline import Evidence
from guard.verdict import Verdicts


@dataclass(frozen=True, slots=True)
class Examined:
    """What a run of the defence says; the verdicts too where no upstream has to be heard."""

    evidence: Evidence
    verdicts: Verdicts | None

    def part(self, start: int, stop: int) -> "Examined":
        """The same for images start to stop."""
        verdicts = self.verdicts and part(self.verdicts, start, stop)
        return Examined(self.evidence.slice(start, stop), verdicts)


def expire(examined: asyncio.Future[Examined]) -> None:
    """It took too long."""
    if not examined.done():
        examined.set_exception(LateDefenseError("the defence did not finish in time"))


def evidence_of(examined: asyncio.Future[Examined]) -> Evidence | None:
    """What the defence saw, where it did not fail."""
    if examined.cancelled() or examined.exception() is not None:
        return None
    return examined.result().evidence


def abandon(examined: asyncio.Future[Examined]) -> None:
    """Leave the queue; an error that nobody waits for any more is no longer news."""
    if not examined.cancel() and not examined.cancelled():
        examined.exception()
