"""Judging: one suspect after the other, labels, undo."""

from collections.abc import Sequence
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from guard.console.filters import asked
from guard.console.page import render
from guard.console.room import Visitor, room, visitor
from guard.console.shield import first
from guard.suspects.record import Row

BATCH = 10  # suspects that a reviewer holds at once
MOST = 100  # that may be asked for, those that were skipped among them


async def start(request: Request) -> Response:
    """On to the next open suspects, held for this reviewer for a while."""
    here, guest = room(request), visitor(request)
    wanted = asked(request.query_params)
    walk, query = guest.session.walk, wanted.query()
    if walk.way == "review" and walk.query == query:
        walk.leave()
    if "again" in request.query_params:
        walk.skipped = {}
    limit = min(MOST, BATCH + len(walk.skipped))
    held = await here.desk.claim(guest.who, replace(wanted.filter, state=None), limit=limit)
    walk.begin([row.id for row in held if row.id not in walk.skipped][:BATCH], "review", query)
    if walk.ids:
        return RedirectResponse(f"/suspects/{walk.ids[0]}", 303)
    return render(
        request, "done.html", counts=await here.desk.counts(guest.who), query=query,
        skipped=len(walk.skipped), labelled=guest.session.labelled,
    )  # fmt: skip


async def label(request: Request) -> Response:
    """Say what one or several are, and on to the next."""
    here, guest, form = room(request), visitor(request), request.state.form
    ids = form.get("id", [])
    said = first(form, "label")
    rows = await here.desk.label(guest.who, ids, said)
    guest.session.labelled += len(rows)
    guest.session.walk.done.update(row.id for row in rows)
    guest.session.said = told(rows, said, here.desk.required)
    return RedirectResponse(_next(guest, first(form, "at"), bool(first(form, "stay"))), 303)


async def undo(request: Request) -> Response:
    """Take the last labelling back, and show what it was about."""
    here, guest, form = room(request), visitor(request), request.state.form
    rows = await here.desk.undo(guest.who)
    if not rows:
        guest.session.said = "There is nothing to undo."
        return RedirectResponse(_back(guest, first(form, "at")), 303)
    walk, session = guest.session.walk, guest.session
    session.labelled = max(0, session.labelled - len(rows))
    walk.done.difference_update(row.id for row in rows)
    many = f"{len(rows)} labels" if len(rows) > 1 else "Label"
    session.said = f"{many} taken back."
    return RedirectResponse(f"/suspects/{rows[0].id}" if len(rows) == 1 else _back(guest, ""), 303)


def told(rows: Sequence[Row], said: str, required: int) -> str:
    """What a labelling did, in a sentence."""
    what = f"{len(rows)} suspects" if len(rows) != 1 else "1 suspect"
    text = f"Labelled {what} as {said}."
    waiting = sum(row.state == "open" for row in rows)
    disputed = sum(row.state == "disputed" for row in rows)
    if disputed:
        text += f" Disputed: {disputed}."
    if required > 1 and waiting and said != "unsure":
        text += f" A second reviewer is needed for {waiting}."
    return text


def _next(guest: Visitor, at: str, stay: bool) -> str:
    """Where one goes after a label."""
    walk = guest.session.walk
    if stay or at not in walk.ids:
        return _back(guest, at)
    _, after = walk.beside(at)
    if after is not None:
        return f"/suspects/{after}"
    return f"/review?{walk.query}" if walk.way == "review" else f"/suspects?{walk.query}"


def _back(guest: Visitor, at: str) -> str:
    """The page one came from."""
    if at and at.isalnum():
        return f"/suspects/{at}"
    walk = guest.session.walk
    return f"/suspects?{walk.query}" if walk.way == "queue" else "/suspects"
