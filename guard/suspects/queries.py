"""Filters, orders and pages as SQL that SQLite and PostgreSQL both understand."""

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from guard.errors import InputError
from guard.suspects.parts import Dialect, Value
from guard.suspects.record import Filter
from guard.suspects.store import Order

MAX_IDS = 10_000
NOT_A_NUMBER = 2.0  # in the place of a p-value that is none: after all others
SAME = ("model", "pack", "tenant", "client", "predicted", "state", "label")  # compared as they are
ORDERS: dict[str, tuple[str, str]] = {
    "newest": ("taken", "DESC"),
    "oldest": ("taken", "ASC"),
    "most_suspicious": ("p_value", "ASC"),
}


class Where(NamedTuple):
    """A condition and its values."""

    sql: str
    values: tuple[Value, ...]

    def also(self, sql: str, *values: Value) -> "Where":
        """This condition, and another."""
        return Where(f"{self.sql} AND {sql}", (*self.values, *values))


def where(wanted: Filter, dialect: Dialect) -> Where:
    """What a filter means."""
    found = Where("1 = 1", ())
    if wanted.ids is not None:
        found = found.also(*among("id", wanted.ids))
    for name in SAME:
        if (value := getattr(wanted, name)) is not None:
            found = found.also(f"{name} = ?", value)
    if wanted.decision is not None:
        found = found.also("decision = ?", int(wanted.decision))
    if wanted.sampled is not None:
        found = found.also("sampled = ?", int(wanted.sampled))
    if wanted.defense is not None:
        found = found.also(f"{dialect.find}(alarms, ?) > 0", json.dumps(wanted.defense))
    for condition, bound in (
        ("taken >= ?", wanted.taken_from),
        ("taken < ?", wanted.taken_before),
        ("p_value <= ?", wanted.p_value_at_most),
    ):
        if bound is not None:
            found = found.also(condition, float(bound))
    return found


def among(column: str, values: Sequence[Value]) -> tuple[Any, ...]:
    """A condition that a column is one of these, and the values."""
    if len(values) > MAX_IDS:
        raise InputError(f"at most {MAX_IDS} ids at once, not {len(values)}")
    if not values:
        return ("1 = 0",)
    return (f"{column} IN ({', '.join('?' * len(values))})", *values)


def ordered(order: Order) -> str:
    """The end of a SELECT."""
    column, way = ORDERS[order]
    return f"ORDER BY {column} {way}, number {way}"


def after(condition: Where, order: Order, cursor: str | None) -> Where:
    """The same rows, of those that come after a page's end."""
    if cursor is None:
        return condition
    column, way = ORDERS[order]
    value, number = parse_cursor(cursor)
    sign = ">" if way == "ASC" else "<"
    return condition.also(f"({column}, number) {sign} (?, ?)", value, number)


def cursor_of(order: Order, row: dict[str, Any]) -> str:
    """Where a page ends, as its reader hands it back."""
    return f"{float(row[ORDERS[order][0]]).hex()}.{row['number']}"


def parse_cursor(cursor: str) -> tuple[float, int]:
    """The end of a page; InputError where it never was one."""
    value, _, number = cursor.rpartition(".")
    try:
        found = float.fromhex(value), int(number)
    except (ValueError, OverflowError):
        raise InputError("`after` is not where a page ended") from None
    if not math.isfinite(found[0]) or not 0 <= found[1] < 1 << 63:
        raise InputError("`after` is not where a page ended")
    return found


def p_value_in(p_value: float) -> float:
    """A p-value as the index keeps it."""
    return NOT_A_NUMBER if math.isnan(p_value) else p_value


def p_value_out(kept: float) -> float:
    """A p-value as it was."""
    return math.nan if kept == NOT_A_NUMBER else kept
