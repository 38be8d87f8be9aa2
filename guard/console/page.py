"""Pages from templates: every value is escaped unless a template says otherwise, and none does."""

import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from guard.console import phrases
from guard.console.room import Visitor, may

STATIC = files("guard.console") / "static"
KINDS = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


def render(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page; with what every page needs."""
    visitor: Visitor | None = getattr(request.state, "visitor", None)
    said = ""
    if visitor is not None:
        said, visitor.session.said = visitor.session.said, ""
    everywhere = {
        "visitor": visitor,
        "csrf": visitor.session.csrf if visitor else "",
        "person": phrases.person(visitor.who.name) if visitor else "",
        "may": (lambda call: may(visitor.who, call)) if visitor else (lambda _: False),
        "said": said,
        "path": request.url.path,
        "version": {name: _version(name) for name in KINDS},
    }
    page = environment().get_template(template).render(**{**everywhere, **values})
    return HTMLResponse(page, status)


@cache
def environment() -> Environment:
    """The templates, compiled once."""
    made = Environment(
        loader=PackageLoader("guard.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in (
        "ago",
        "chance",
        "iso",
        "many",
        "moment",
        "percent",
        "person",
        "plain",
        "rarer",
        "short",
    ):
        made.filters[name] = getattr(phrases, name)
    made.filters["defense"] = phrases.defense
    made.filters["rarity"] = phrases.rarity
    made.filters["bytes"] = phrases.size
    return made


async def static(request: Request) -> Response:
    """Our own style, script and icon; nothing else."""
    name = request.path_params["name"]
    if name not in KINDS:
        return Response(status_code=404)
    headers = {"cache-control": "private, max-age=86400, immutable"}
    return Response(_read(name), media_type=KINDS[name], headers=headers)


@cache
def _read(name: str) -> bytes:
    return (STATIC / name).read_bytes()


@cache
def _version(name: str) -> str:
    """Changes with the file, so that browsers may keep it."""
    return hashlib.sha256(_read(name)).hexdigest()[:12]
