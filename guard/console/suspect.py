"""One suspect: what came, what the defence made of it, who said what, and what looks like it."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from guard.console import figures, panels, phrases
from guard.console.page import render
from guard.console.room import room, visitor
from guard.pipeline import Explanation
from guard.suspects.record import Suspect

SIMILAR = 12


class Drawn(NamedTuple):
    """A view of the picture beside what it lacks."""

    title: str
    picture: str
    residual: str
    gain: int
    largest: float
    mean: float
    says: str = ""  # the class that it was answered with
    asked: str = ""  # who answered
    changed: bool = False  # whether that is another class than theirs on the original


class Pictures(NamedTuple):
    """All that is drawn on a page, as `data:` addresses."""

    original: str
    lost: Drawn
    views: list[Drawn]


async def page(request: Request) -> Response:
    """The page; opening it is one audited view of the picture."""
    here, guest = room(request), visitor(request)
    suspect_id = request.path_params["id"]
    row, suspect = await here.desk.view(guest.who, suspect_id)
    explained, similar = await asyncio.gather(
        here.explain(suspect), here.desk.similar(guest.who, suspect_id, SIMILAR)
    )
    classes = here.classes(suspect.model)
    drawn = await asyncio.to_thread(_drawn, suspect, explained.found, classes)
    walk = guest.session.walk
    before, after = walk.beside(suspect_id)
    return render(
        request,
        "suspect.html",
        row=row,
        suspect=suspect,
        explained=explained,
        drawn=drawn,
        similar=similar,
        predicted=here.predicted,
        defenses=panels.defenses(suspect),
        budget=phrases.rarity(suspect.budget),
        answers=panels.answers(suspect, explained.found.members, classes),
        reviews=panels.reviews(row, guest.who.name, here.desk.required),
        counts=await here.desk.counts(guest.who),
        walk=walk,
        place=walk.place(suspect_id),
        before=before,
        after=after,
    )


async def image(request: Request) -> Response:
    """The picture alone, as a PNG; one audited view."""
    here, guest = room(request), visitor(request)
    found = await here.desk.view(guest.who, request.path_params["id"])
    data = await asyncio.to_thread(figures.png, found.suspect.image)
    return Response(data, media_type="image/png")


def _drawn(suspect: Suspect, found: Explanation, classes: Sequence[str]) -> Pictures:
    image = suspect.image
    views = []
    for name, picture in found.views.items():
        asked, best = found.asked[name], int(found.answers[name].argmax())
        views.append(
            _beside(phrases.view(name), image, picture)._replace(
                says=panels.class_name(classes, best),
                asked=phrases.plain(asked),
                changed=best != int(found.members[asked].argmax()),
            )
        )
    return Pictures(
        figures.inline(figures.png(image)),
        _beside("3×3 median", image, figures.median(image)),
        views,
    )


def _beside(title: str, image: figures.Floats, view: figures.Floats) -> Drawn:
    lost = figures.residual(image, view)
    return Drawn(
        title,
        figures.inline(figures.png(view)),
        figures.inline(lost.png),
        lost.gain,
        lost.largest,
        lost.mean,
    )
