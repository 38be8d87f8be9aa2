"""One record of the audit log: a line of JSON whose last member links it to the line before.

    {"seq":7,"key":1,"time":"2026-11-20T13:42:08.123456Z","event":"admin.call","actor":"1:9f…",
     "outcome":"ok","details":{"rpc":"Status"},"link":"<64 hex digits>"}

`link` = HMAC-SHA-256(key number `key`, previous link ‖ every byte of the line before `,"link"`).
Details are short and flat: no pictures, no scores, and names of subjects only as keyed hashes.
"""

import json
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, get_args

Event = Literal[
    "log.begin",  # the first record of a log: its id
    "log.segment",  # the first record of every further file: its id and the link before
    "log.torn",  # a start found an unfinished line, and where it was put
    "log.lost",  # so many records could not be written
    "log.damaged",  # a start found the end of the log altered or cut (on_error = "allow")
    "gateway.start",
    "gateway.stop",
    "gateway.pack",  # a pack was loaded
    "refused.identity",
    "refused.permission",
    "refused.limit",
    "admin.call",  # a call of guard.v1
    "suspect.view",
    "suspect.label",
    "suspect.export",
    "suspect.erase",
    "suspect.rotate",  # the keys that seal them
    "console.login",
    "model.shadow",  # a candidate was submitted, to be watched beside what serves
    "model.promote",
    "model.rollback",
    "other",
]
EVENTS: tuple[str, ...] = get_args(Event)
ZERO = bytes(32)  # the link before the first record
HEAD = re.compile(
    rb'\{"seq":(\d{1,18}),"key":(\d{1,9}),"time":"([0-9T:.Z-]{27})","event":"([a-z.]{1,40})","'
)
MARK = b',"link":"'
TAIL = len(MARK) + 64 + 2  # bytes from `,"link":"` to `"}`
MAX_DETAILS, MAX_TEXT = 16, 200

Value = str | int | bool | list[str]


class Entry(NamedTuple):
    """What is to be recorded, before it has a place in the log."""

    time: str
    event: str
    actor: str
    outcome: str
    details: str  # JSON


class Line(NamedTuple):
    """A line taken apart; `link` is what it claims."""

    seq: int
    key: int
    time: str
    event: str
    body: bytes
    link: bytes


def utc(seconds: float) -> str:
    """Seconds since 1970 as UTC, to the microsecond."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def now() -> str:
    """The time as the log writes it."""
    return utc(time.time())


def entry(event: str, *, actor: str = "", outcome: str = "ok", details: Any = None) -> Entry:
    """An entry of now; `actor` is a keyed hash already."""
    return Entry(now(), event, actor, outcome[:40], details_json(details or {}))


def details_json(details: Mapping[str, Any]) -> str:
    """Details as short flat JSON; what is too long or too deep is cut or named by its type only."""
    items = list(details.items())[:MAX_DETAILS]
    return json.dumps({str(k)[:40]: _plain(v) for k, v in items}, separators=(",", ":"))


def _plain(value: Any) -> Value:
    if isinstance(value, str):
        return value[:MAX_TEXT]
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**63):
        return value
    if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return [one[:MAX_TEXT] for one in value[:MAX_DETAILS]]
    return f"<{type(value).__name__}>"


def body(seq: int, key: int, what: Entry) -> bytes:
    """The linked bytes of a record."""
    text = (
        f'{{"seq":{seq},"key":{key},"time":"{what.time}","event":"{what.event}",'
        f'"actor":"{what.actor}","outcome":{json.dumps(what.outcome)},"details":{what.details}'
    )
    return text.encode("ascii")


def finish(linked: bytes, link: bytes) -> bytes:
    """A whole line from its linked bytes and their link."""
    return b'%b%b%b"}\n' % (linked, MARK, link.hex().encode())


def take_apart(line: bytes) -> Line | None:
    """A line without its newline as its parts; None where it is no record."""
    head = HEAD.match(line)
    if head is None or line[-TAIL : -TAIL + len(MARK)] != MARK or line[-2:] != b'"}':
        return None
    try:
        link = bytes.fromhex(line[-66:-2].decode("ascii"))
    except ValueError:
        return None
    if link.hex().encode() != line[-66:-2]:
        return None
    seq, key, time, event = head.groups()
    return Line(int(seq), int(key), time.decode(), event.decode(), line[:-TAIL], link)


def content(line: bytes) -> dict[str, Any]:
    """A line as the dict it is; ValueError where it is no JSON object."""
    try:
        value = json.loads(line)
    except RecursionError:
        raise ValueError("too deep") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value
