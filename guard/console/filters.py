"""What the address of a page says about which suspects are meant, and back again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, cast, get_args
from urllib.parse import urlencode

from guard.errors import InputError
from guard.suspects.record import Filter, Label, State
from guard.suspects.store import Order
from guard.verdict import Decision

ORDERS: Mapping[Order, str] = {
    "newest": "newest first",
    "oldest": "oldest first",
    "most_suspicious": "most suspicious first",
}
STATES: tuple[State, ...] = get_args(State)
LABELS: tuple[Label, ...] = get_args(Label)
LONGEST = 200  # characters of one value
TIME = "%Y-%m-%dT%H:%M"  # what <input type="datetime-local"> sends


@dataclass(frozen=True)
class Asked:
    """A filter, an order and a place, as a page's address names them."""

    fields: Mapping[str, str]  # the filter's, as they were given
    filter: Filter
    order: Order = "newest"
    after: str | None = None
    pictures: bool = False

    def query(self, **changes: str | None) -> str:
        """The address's query with these values changed, None: left out."""
        values = dict(self.fields)
        if self.order != "newest":
            values["order"] = self.order
        if self.pictures:
            values["view"] = "pictures"
        for name, value in changes.items():
            values.pop(name, None)
            if value is not None:
                values[name] = value
        return urlencode(values)


def asked(values: Mapping[str, str]) -> Asked:
    """What a query asks for. Raises InputError, which names the field."""
    fields = {name: values[name].strip() for name in _FIELDS if values.get(name, "").strip()}
    for name, value in fields.items():
        if len(value) > LONGEST:
            raise InputError(f"{name} is too long")
    order = _one_of("order", values.get("order", "newest"), list(ORDERS))
    after = values.get("after") or None
    if after is not None and len(after) > LONGEST:
        raise InputError("after is too long")
    read = dict(_read(name, text) for name, text in fields.items())
    wanted = replace(Filter(), **read)
    return Asked(fields, wanted, cast("Order", order), after, values.get("view") == "pictures")


_FIELDS = (
    "model", "class", "defense", "decision", "state", "label", "from", "until", "p", "sampled",
    "client", "tenant",
)  # fmt: skip


def _read(name: str, text: str) -> tuple[str, Any]:
    """One field as the filter has it."""
    if name == "class":
        return "predicted", _whole(name, text)
    if name == "decision":
        return name, Decision[_one_of(name, text, list(Decision.__members__))]
    if name in ("state", "label"):
        return name, _one_of(name, text, STATES if name == "state" else LABELS)
    if name in ("from", "until"):
        return ("taken_from" if name == "from" else "taken_before"), _seconds(name, text)
    if name == "p":
        return "p_value_at_most", _share(name, text)
    if name == "sampled":
        return name, _one_of(name, text, ("yes", "no")) == "yes"
    return name, text


def _one_of(name: str, text: str, known: Sequence[str]) -> str:
    if text not in known:
        raise InputError(f"{name}: {text[:20]!r} is none of {', '.join(known)}")
    return text


def _whole(name: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise InputError(f"{name}: {text[:20]!r} is no whole number")
    return int(text)


def _share(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise InputError(f"{name}: {text[:20]!r} is not between 0 and 1")
    return value


def _seconds(name: str, text: str) -> float:
    try:
        return datetime.strptime(text[:16], TIME).replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        raise InputError(f"{name}: {text[:20]!r} is no time like 2026-11-20T18:30") from None
