"""The console as an ASGI application: its pages, and what it says when something is wrong."""

import logging

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from guard.console import log_in, queue, review, suspect
from guard.console.page import render, static
from guard.console.room import Room
from guard.console.shield import Shield
from guard.errors import (
    AuditError,
    GuardError,
    InputError,
    OverloadedError,
    StoreError,
    UnknownSuspectError,
)
from guard.gateway.status import ForbiddenError, new_id

# What went wrong: HTTP status, heading.
WRONG: tuple[tuple[type[Exception], int, str], ...] = (
    (InputError, 400, "That cannot be understood"),
    (ForbiddenError, 403, "Not yours to do"),
    (UnknownSuspectError, 404, "No such suspect"),
    (OverloadedError, 503, "Too busy"),
    (AuditError, 503, "It cannot be recorded, so it is not done"),
    (StoreError, 503, "The suspects cannot be reached"),
    (GuardError, 500, "That did not work"),
)
log = logging.getLogger(__name__)


async def _home(_request: Request) -> Response:
    return RedirectResponse("/suspects", 303)


async def _help(request: Request) -> Response:
    return render(request, "help.html")


async def _nowhere(request: Request) -> Response:
    return await problem(request, UnknownPageError("There is no such page."))


class UnknownPageError(GuardError):
    """An address that leads nowhere."""


ROUTES = [
    Route("/", _home),
    Route("/login", log_in.form, methods=["GET"]),
    Route("/login", log_in.submit, methods=["POST"]),
    Route("/logout", log_in.leave, methods=["POST"]),
    Route("/suspects", queue.page),
    Route("/suspects/{id}", suspect.page),
    Route("/suspects/{id}/image.png", suspect.image),
    Route("/review", review.start),
    Route("/label", review.label, methods=["POST"]),
    Route("/undo", review.undo, methods=["POST"]),
    Route("/counts.json", queue.counters),
    Route("/export.{kind}", queue.export),
    Route("/help", _help),
    Route("/static/{name}", static),
    Route("/{rest:path}", _nowhere),
]


def application(room: Room) -> ASGIApp:
    """All pages, behind the shield."""
    return Shield(Router(ROUTES, redirect_slashes=False), room, problem)


async def problem(request: Request, error: Exception) -> Response:
    """A plain page, or line, for what went wrong; what nobody expected has an id in the log."""
    status, heading, text = _wrong(error)
    if "text/html" not in request.headers.get("accept", ""):
        return Response(f"{text}\n", status, media_type="text/plain")
    return render(request, "problem.html", status=status, heading=heading, text=text)


def _wrong(error: Exception) -> tuple[int, str, str]:
    if isinstance(error, UnknownPageError):
        return 404, "Nothing here", str(error)
    for kind, status, heading in WRONG:
        if isinstance(error, kind):
            return status, heading, str(error)
    if isinstance(error, TimeoutError):
        return 503, "Too slow", "This took too long."
    case = new_id()
    log.error("console: internal error %s", case, exc_info=error)
    return 500, "Something is broken here", f"internal error {case}"
