"""What a break in the chain looks like: a guess at what was done, from the lines around it."""

import hmac
from collections.abc import Sequence
from typing import NamedTuple

from guard.gateway.audit.keys import KeyRing
from guard.gateway.audit.record import HEAD, Line, take_apart


class Break(NamedTuple):
    """The first line that is not the record that was due."""

    lines: Sequence[bytes]  # of its file
    at: int
    later: Sequence[bytes]  # of the files after it
    head: bytes  # the link of the last good record
    due: int  # the number that this record should have
    key: int  # the key in use before it


def what(broken: Break, keys: KeyRing) -> tuple[str, str]:
    """The kind of tampering that it looks like, and a sentence about it."""
    line = take_apart(broken.lines[broken.at])
    if line is None:
        return "edit", "this line is no record any more"
    if line.key not in keys.keys:
        return "wrong key", f"it names key {line.key}, which the key file does not hold"
    if line.seq != broken.due:
        return _out_of_place(broken, line)
    if line.key < broken.key:
        return "re-stamp", "it was linked with a key that had been replaced"
    after = _next(broken)
    if after is not None and _follows(keys, broken.head, after) and after.seq == line.seq:
        return "insert", f"this record was put before the real record {line.seq}"
    if after is not None and _follows(keys, line.link, after):
        return "edit", "its content was changed; the record after it still fits its old link"
    if broken.due == 1:
        return "wrong key", "not even the first record fits: other keys, or all was written anew"
    if after is None:
        return "edit", "the last record was changed, or its link was"
    return "re-stamp", "from here on links do not fit: changed and linked anew without the key"


def _out_of_place(broken: Break, line: Line) -> tuple[str, str]:
    numbers = [_number(one) for one in (*broken.lines[broken.at + 1 :], *broken.later)]
    if broken.due in numbers:
        before = set(broken.lines[: broken.at])
        if line.seq < broken.due or broken.lines[broken.at] in before or line.seq in numbers:
            return "insert", f"a record numbered {line.seq} was put before record {broken.due}"
        return "reorder", f"record {line.seq} stands where record {broken.due} belongs"
    if line.seq < broken.due:
        return "insert", f"a record numbered {line.seq} was put behind record {broken.due - 1}"
    missing = f"record {broken.due} is" if line.seq == broken.due + 1 else (
        f"records {broken.due} to {line.seq - 1} are"
    )  # fmt: skip
    return "delete", f"{missing} missing"


def _next(broken: Break) -> Line | None:
    rest = [*broken.lines[broken.at + 1 : broken.at + 2], *broken.later[:1]]
    return take_apart(rest[0]) if rest else None


def _follows(keys: KeyRing, head: bytes, line: Line) -> bool:
    return line.key in keys.keys and hmac.compare_digest(
        keys.link(line.key, head, line.body), line.link
    )


def _number(line: bytes) -> int:
    found = HEAD.match(line)
    return int(found[1]) if found else 0
