"""Rows of an index, as its tables hold them and as the store gives them out."""

import json
from collections.abc import Sequence
from typing import Any

from guard.errors import StoreError, UnknownSuspectError
from guard.suspects import queries
from guard.suspects.agreement import latest
from guard.suspects.parts import Dialect, Session, Value
from guard.suspects.record import Review, Row
from guard.verdict import Decision

COLUMNS = (
    *("number", "id", "taken", "model", "pack", "tenant", "client", "sampled", "decision"),
    *("p_value", "predicted", "alarms", "seen", "bytes", "state", "label"),
)
SELECT = f"SELECT {', '.join(COLUMNS)} FROM suspects"


def full(session: Session, found: Sequence[dict[str, Any]]) -> list[Row]:
    """Rows with their reviews."""
    given: dict[int, list[Review]] = {row["number"]: [] for row in found}
    for number, review in reviews_of(session, list(given)):
        given[number].append(review)
    return [_row(row, latest(given[row["number"]])) for row in found]


def locked(
    session: Session, dialect: Dialect, column: str, values: Sequence[Value]
) -> dict[str, int]:
    """Ids and numbers of those of these that are there, which nobody changes meanwhile.

    Always in the order of their ids: two who lock in different orders wait for each other forever.
    """
    condition, *bound = queries.among(column, values)
    sql = f"SELECT id, number FROM suspects WHERE {condition} ORDER BY id{dialect.lock}"
    return dict(session.all(sql, bound))


def reviews_of(session: Session, numbers: Sequence[int]) -> list[tuple[int, Review]]:
    """Every review of these, oldest first."""
    condition, *values = queries.among("suspect", numbers)
    found = session.all(
        f"SELECT suspect, reviewer, label, at, source FROM reviews WHERE {condition} ORDER BY step",
        values,
    )
    return [(number, Review(*rest)) for number, *rest in found]


def by_number(session: Session, numbers: Sequence[int]) -> list[Row]:
    """Rows in this order."""
    condition, *values = queries.among("number", numbers)
    found = {
        row["number"]: row for row in named(session.all(f"{SELECT} WHERE {condition}", values))
    }
    return full(session, [found[number] for number in numbers])


def one(session: Session, suspect_id: str) -> tuple[int, Row]:
    """A suspect's number and row; UnknownSuspectError where there is none."""
    found = named(session.all(f"{SELECT} WHERE id = ?", (suspect_id,)))
    if not found:
        raise UnknownSuspectError(f"no suspect {suspect_id!r}")
    return found[0]["number"], full(session, found)[0]


def named(found: Sequence[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """What `SELECT` gave, by column."""
    return [dict(zip(COLUMNS, row, strict=True)) for row in found]


def _row(found: dict[str, Any], reviews: tuple[Review, ...]) -> Row:
    """StoreError where somebody has written what this index never holds."""
    rest = {name: found[name] for name in COLUMNS if name != "number"}
    try:
        for name in ("seen", "bytes", "predicted"):
            rest[name] = int(rest[name])
        rest["taken"] = float(rest["taken"])
        rest["sampled"] = bool(rest["sampled"])
        rest["decision"] = Decision(rest["decision"])
        rest["p_value"] = queries.p_value_out(float(rest["p_value"]))
        rest["alarms"] = tuple(map(str, json.loads(rest["alarms"])))
    except (ValueError, TypeError):
        raise StoreError(f"suspect {found['id']}: its row in the index is damaged") from None
    return Row(**rest, reviews=reviews)
