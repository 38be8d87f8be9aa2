"""Logging in and out: a name and a password, or a token of the gateway's identity."""

import asyncio
import logging
import math

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from guard import metrics
from guard.console.page import render
from guard.console.room import Room, cookie_name, room
from guard.console.shield import first
from guard.console.users import LONGEST, LONGEST_NAME
from guard.errors import OverloadedError
from guard.gateway.identity import Identity
from guard.gateway.status import UnauthenticatedError

WAITING = 16  # log-ins that may wait for a hash
WRONG = "That name and password do not go together."
log = logging.getLogger(__name__)


async def form(request: Request) -> Response:
    """The form, or the pages for whoever is known already."""
    here = room(request)
    if here.sessions.find(request.cookies.get(cookie_name(here.secure), "")):
        return RedirectResponse("/suspects", 303)
    return _form(request)


async def submit(request: Request) -> Response:
    """Check what was typed; a cookie for whoever is known."""
    here, fields = room(request), request.state.form
    token, name = first(fields, "token").strip(), first(fields, "name").strip()
    address = request.client.host if request.client else ""
    keys = (f"{name[:LONGEST_NAME]} {address}", address, name[:LONGEST_NAME])
    gates = tuple(zip((here.by_pair, here.by_address, here.by_name), keys, strict=True))
    wait = max(gate.wait(key) for gate, key in gates)
    if wait > 0:
        text = f"Too many attempts. Try again in {math.ceil(wait / 60)} min."
        return _form(request, text, status=429, name=name)
    value = await (_by_token(here, token) if token else _by_password(here, fields, name))
    if value is None:
        for gate, key in gates:
            gate.failed(key)
        metrics.AUTH_FAILURES.labels("password").inc()
        here.audit.record("refused.identity", outcome="refused", page="console", why="password")
        text = "That token is not valid here." if token else WRONG
        return _form(request, text, status=401, name=name)
    here.by_pair.good(keys[0])
    found = here.sessions.find(value)
    await here.audit.act("console.login", actor=found[1].name if found else "")
    response = RedirectResponse("/suspects", 303)
    response.set_cookie(
        cookie_name(here.secure), value, path="/", secure=here.secure, httponly=True,
        samesite="strict",
    )  # fmt: skip
    return response


async def leave(request: Request) -> Response:
    """Forget the session."""
    here = room(request)
    name = cookie_name(here.secure)
    here.sessions.end(request.cookies.get(name, ""))
    response = RedirectResponse("/login", 303)
    response.delete_cookie(name, secure=here.secure, httponly=True, samesite="strict")
    return response


async def _by_password(here: Room, fields: dict[str, list[str]], name: str) -> str | None:
    password = first(fields, "password")
    if here.users is None or len(password.encode()) > LONGEST or len(name) > LONGEST_NAME:
        return None
    if here.logging_in > WAITING:
        raise OverloadedError("too many are logging in at once")
    here.logging_in += 1
    try:
        async with here.hashing:
            user = await asyncio.to_thread(here.users.check, name, password)
    finally:
        here.logging_in -= 1
    if user is None:
        return None
    users, secret = here.users, user.secret

    def alive() -> Identity | None:
        now = users.all().get(name)
        return now.identity if now and now.secret == secret else None

    return here.sessions.begin(user.identity.name, alive)


async def _by_token(here: Room, token: str) -> str | None:
    authenticator = here.authenticator
    if authenticator is None:
        return None

    def alive() -> Identity | None:
        try:
            return authenticator.by_token([f"Bearer {token}"])
        except UnauthenticatedError:
            return None

    who = alive()
    return here.sessions.begin(who.name, alive) if who is not None else None


def _form(request: Request, wrong: str = "", *, status: int = 200, name: str = "") -> Response:
    here = room(request)
    return render(
        request, "login.html", status=status, wrong=wrong, name=name[:LONGEST_NAME],
        passwords=here.users is not None, tokens=here.authenticator is not None,
    )  # fmt: skip
