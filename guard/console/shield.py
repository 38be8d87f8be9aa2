"""What every request passes first, and every answer carries.

Who comes is known by a session's cookie or a token in `Authorization`. Whatever changes something
comes from a page of ours: the browser says so (`Origin`), and the page proves it (a secret of the
session in each form). Nothing is kept in a cache, framed, or fetched from elsewhere.
"""

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import parse_qs

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guard import metrics
from guard.console.room import Room, Visitor, cookie_name
from guard.console.sessions import Session
from guard.errors import InputError
from guard.gateway.access import count_refusal
from guard.gateway.identity import CURRENT
from guard.gateway.status import ForbiddenError, UnauthenticatedError

LARGEST_FORM = 256 << 10  # bytes: a thousand ids
MOST_FIELDS = 1200
FORM_SECONDS, ANSWER_SECONDS = 20.0, 120.0  # that a form may take to arrive, an answer to leave
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "x-robots-tag": "noindex",
    "server": "guard",
}
OPEN = ("/login", "/static/")  # pages that nobody needs to be known for
Problem = Callable[[Request, Exception], Awaitable[Response]]
log = logging.getLogger(__name__)


class Shield:
    """The outermost layer: headers, size, origin, session; errors become plain pages."""

    def __init__(self, app: ASGIApp, room: Room, problem: Problem) -> None:
        self._app, self._room, self._problem = app, room, problem
        self._sessions, self._authenticator = room.sessions, room.authenticator
        self._origin, self._secure = room.settings.origin, room.secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        request.state.room, request.state.visitor, request.state.form = self._room, None, {}
        started = False

        async def sealed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
                if self._secure:
                    headers["strict-transport-security"] = "max-age=31536000"
            await send(message)

        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                turned = await self._enter(request)
                await (turned or self._app)(scope, receive, sealed)
        except Exception as error:
            response = await self._problem(request, error)
            if not started:
                await response(scope, receive, sealed)

    async def _enter(self, request: Request) -> Response | None:
        """Take down who comes; a response where they have to go elsewhere first."""
        path, state = request.url.path, request.state
        visitor = self._visitor(request)
        if request.method == "POST":
            if visitor is None or not visitor.token:
                self._check_origin(request)
            state.form = await _form(request)
        elif request.method not in ("GET", "HEAD"):
            return Response(status_code=405)
        if path.startswith(OPEN):
            return None
        if visitor is None:
            if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
                return RedirectResponse("/login", 303)
            return Response(status_code=401)
        state.visitor = visitor
        CURRENT.set(visitor.who)
        if request.method == "POST" and not visitor.token:
            given = first(state.form, "csrf")
            if not hmac.compare_digest(given.encode(), visitor.session.csrf.encode()):
                raise ForbiddenError("this form is not of your session: load the page again")
        return None

    def _visitor(self, request: Request) -> Visitor | None:
        found = self._sessions.find(request.cookies.get(cookie_name(self._secure), ""))
        if found is not None:
            return Visitor(found[1], found[0])
        header = request.headers.get("authorization")
        if header is None or self._authenticator is None:
            return None
        try:
            who = self._authenticator.by_token([header])
        except UnauthenticatedError as error:
            count_refusal(error)
            self._room.audit.record("refused.identity", outcome="refused", page="console")
            return None
        if who is None:
            return None
        return Visitor(who, Session(who.name, lambda: who, 0, 0), token=True)

    def _check_origin(self, request: Request) -> None:
        """Raise ForbiddenError for what no page of ours has sent."""
        scheme = "https" if self._secure else "http"
        expected = self._origin or f"{scheme}://{request.headers.get('host', '')}"
        site = request.headers.get("sec-fetch-site", "same-origin")
        if request.headers.get("origin") != expected or site != "same-origin":
            metrics.AUTH_FAILURES.labels("origin").inc()
            raise ForbiddenError("this was not sent from a page of the console")


def first(form: Mapping[str, list[str]], name: str, default: str = "") -> str:
    """A field's first value."""
    return (form.get(name) or [default])[0]


async def _form(request: Request) -> dict[str, list[str]]:
    """The fields of a form, of bounded size and number."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind not in ("application/x-www-form-urlencoded", ""):
        raise InputError("a form is application/x-www-form-urlencoded")
    body = bytearray()
    async with asyncio.timeout(FORM_SECONDS):
        async for chunk in request.stream():
            body += chunk
            if len(body) > LARGEST_FORM:
                raise InputError(f"a form has {LARGEST_FORM} bytes at most")
    try:
        text = body.decode("ascii")
        return parse_qs(text, keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")
    except ValueError:
        raise InputError("the form cannot be read") from None
