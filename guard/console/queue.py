"""The queue of suspects: filters, counters, rows, and the rows as a file."""

import csv
import dataclasses
import io
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from guard.console.filters import LABELS, ORDERS, STATES, Asked, asked
from guard.console.page import render
from guard.console.panels import shown
from guard.console.room import Room, may, room, visitor
from guard.errors import InputError
from guard.suspects.record import Counts, Row
from guard.verdict import Decision

ROWS = 50  # of a page
PICTURES = 24
EXPORTED = 500  # rows asked for at a time
TYPES = {"csv": "text/csv", "jsonl": "application/jsonl"}
COLUMNS = (
    "id", "taken", "model", "class", "class_name", "decision", "p_value", "alarms", "sampled",
    "seen", "state", "label", "reviews", "client", "tenant", "pack",
)  # fmt: skip


async def page(request: Request) -> Response:
    """A page of the queue."""
    here, guest = room(request), visitor(request)
    if not may(guest.who, "ListSuspects"):
        counts = None
        if may(guest.who, "CountSuspects"):
            counts = await here.desk.counts(guest.who)
        return render(request, "nothing.html", status=200 if counts else 403, counts=counts)
    wanted = asked(request.query_params)
    limit = PICTURES if wanted.pictures else ROWS
    found = await here.desk.rows(
        guest.who, wanted.filter, order=wanted.order, after=wanted.after, limit=limit
    )
    walk = guest.session.walk
    walk.begin([row.id for row in found.rows], "queue", wanted.query(after=wanted.after))
    return render(
        request,
        "queue.html",
        rows=found.rows,
        after=found.after,
        asked=wanted,
        counts=await here.desk.counts(guest.who),
        predicted=here.predicted,
        choices=_choices(here, wanted),
        required=here.desk.required,
        me=guest.who.name,
    )


async def counters(request: Request) -> Response:
    """The counters as they are now, for a page that is open."""
    here, guest = room(request), visitor(request)
    counts = await here.desk.counts(guest.who)
    return JSONResponse({**plain(counts), "labelled": guest.session.labelled})


async def export(request: Request) -> Response:
    """The rows that a filter means, without pictures: CSV, or one JSON object a line."""
    here, guest = room(request), visitor(request)
    wanted, kind = asked(request.query_params), request.path_params["kind"]
    if kind not in TYPES:
        raise InputError(f"rows come as {' or '.join(TYPES)}")
    start = await here.desk.rows(guest.who, wanted.filter, order=wanted.order, limit=EXPORTED)

    async def lines() -> AsyncIterator[str]:
        found = start
        if kind == "csv":
            yield _csv([dict.fromkeys(COLUMNS)], names=True)
        while True:
            records = [_record(here, row, guest.who.name) for row in found.rows]
            if kind == "csv":
                yield _csv(records)
            else:
                yield "".join(json.dumps(record) + "\n" for record in records)
            if found.after is None:
                return
            found = await here.desk.rows(
                guest.who, wanted.filter, order=wanted.order, after=found.after, limit=EXPORTED
            )

    headers = {"content-disposition": f'attachment; filename="suspects.{kind}"'}
    return StreamingResponse(lines(), media_type=TYPES[kind], headers=headers)


def plain(counts: Counts) -> dict[str, int]:
    """Counters by short names."""
    return {
        "total": counts.total,
        "bytes": counts.bytes,
        **{state: counts.by_state.get(state, 0) for state in STATES},
        **{label: counts.by_label.get(label, 0) for label in LABELS},
    }


def _choices(here: Room, wanted: Asked) -> dict[str, object]:
    """What the filters offer."""
    model = wanted.fields.get("model")
    models = [model] if model and model in here.pipelines else list(here.pipelines)
    names: list[str] = []
    for name in models:
        pipeline = here.pipelines[name]
        names += [*pipeline.score_names(upstream=True), *pipeline.score_names(upstream=False)]
    only = models[0] if len(models) == 1 else None
    return {
        "models": list(here.pipelines),
        "classes": list(enumerate(here.classes(only))) if only else [],
        "defenses": list(dict.fromkeys(names)),
        "decisions": [decision.name for decision in Decision],
        "states": STATES,
        "labels": LABELS,
        "orders": ORDERS,
    }


def _record(here: Room, row: Row, me: str) -> dict[str, object]:
    said = [dataclasses.asdict(one) for one in shown(row, me, here.desk.required)]
    taken = datetime.fromtimestamp(row.taken, UTC).isoformat(timespec="milliseconds")
    return {
        "id": row.id,
        "taken": taken,
        "model": row.model,
        "class": row.predicted,
        "class_name": here.predicted(row.model, row.predicted),
        "decision": row.decision.name,
        "p_value": row.p_value if row.p_value == row.p_value else None,
        "alarms": list(row.alarms),
        "sampled": row.sampled,
        "seen": row.seen,
        "state": row.state,
        "label": row.label,
        "reviews": said,
        "client": row.client,
        "tenant": row.tenant,
        "pack": row.pack,
    }


def _csv(records: Sequence[dict[str, object]], *, names: bool = False) -> str:
    """Lines of CSV. What a spreadsheet would run as a formula is written as text."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\r\n")
    if names:
        writer.writeheader()
        return out.getvalue()
    for record in records:
        writer.writerow({name: _cell(value) for name, value in record.items()})
    return out.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, list):
        parts = [f"{r['reviewer']}={r['label']}" if isinstance(r, dict) else str(r) for r in value]
        value = " ".join(parts)
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value
