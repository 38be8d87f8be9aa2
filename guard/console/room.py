"""What the pages share: the desk, the models' packs, who may log in."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from starlette.requests import Request

from guard.config.console import Console as Settings
from guard.console import phrases
from guard.console.sessions import Attempts, Session, Sessions
from guard.console.users import Users
from guard.errors import GuardError
from guard.gateway import permissions, protocol
from guard.gateway.audit.recorder import Audit
from guard.gateway.desk import Desk
from guard.gateway.identity import Authenticator, Identity
from guard.pipeline import Explanation, Pipeline
from guard.suspects.record import Suspect

EXPLAIN_SECONDS = 10.0
NOTHING = Explanation({}, {}, {}, {})
log = logging.getLogger(__name__)


class Explained(NamedTuple):
    """What the pack made of a suspect; `missing` says why there is nothing."""

    found: Explanation
    missing: str = ""


@dataclass(frozen=True)
class Visitor:
    """Who asks for a page. A program with a token has a session of one request."""

    who: Identity
    session: Session = field(repr=False)
    token: bool = False


@dataclass
class Room:
    """One console. Its pages get it from the application's state."""

    desk: Desk
    audit: Audit
    pipelines: Mapping[str, Pipeline]  # by model
    settings: Settings
    sessions: Sessions
    users: Users | None
    authenticator: Authenticator | None
    secure: bool
    by_pair: Attempts = field(default_factory=lambda: Attempts(allowed=8))
    by_address: Attempts = field(default_factory=lambda: Attempts(allowed=40))
    by_name: Attempts = field(default_factory=lambda: Attempts(allowed=100))
    logging_in: int = 0
    hashing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))
    explaining: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))

    def classes(self, model: str) -> tuple[str, ...]:
        """The class names of a model that is served here."""
        return self.pipelines[model].classes if model in self.pipelines else ()

    def predicted(self, model: str, index: int) -> str:
        """The name of a class, or its number."""
        names = self.classes(model)
        return phrases.plain(names[index]) if 0 <= index < len(names) else f"class {index}"

    async def explain(self, suspect: Suspect) -> Explained:
        """Views and members' answers, from the pack that judged it, if that is at hand."""
        pipeline = self.pipelines.get(suspect.model)
        if pipeline is None:
            return Explained(NOTHING, f"The model {suspect.model} is not served here.")
        if suspect.pack not in (pipeline.pack.digest, *pipeline.pack.lineage):
            text = "The pack was changed since: what the squeezers made of it is not shown."
            return Explained(NOTHING, text)
        try:
            async with asyncio.timeout(EXPLAIN_SECONDS), self.explaining:
                found = await asyncio.to_thread(
                    pipeline.explain, suspect.image, suspect.noise_index
                )
        except GuardError as error:
            return Explained(NOTHING, f"{error}.")
        except TimeoutError:
            return Explained(NOTHING, "The pack takes too long to explain itself: load again.")
        return Explained(found, "" if found.views else "This pack does not show its views.")


def room(request: Request) -> Room:
    """The console that a request came to."""
    found: Room = request.state.room
    return found


def visitor(request: Request) -> Visitor:
    """Who asks; the shield has let nobody else through."""
    found: Visitor = request.state.visitor
    return found


def cookie_name(secure: bool) -> str:
    """`__Host-`: no other host, and no other port's plain page, can have set it."""
    return "__Host-guard" if secure else "guard"


def may(who: Identity, call: str) -> bool:
    """Whether somebody may do what this call of `guard.v1` does."""
    method = protocol.GUARD_METHODS.get(call)
    return method is not None and permissions.permitted(method.path, who.roles)
