"""What may be asked of the desk: ids, labels, limits, filters; checked before a store sees them."""

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import get_args

from guard.errors import InputError, UnknownSuspectError
from guard.suspects.record import Filter, Label

LABELS: tuple[Label, ...] = get_args(Label)
ID = re.compile(r"[a-z0-9]{8,64}\Z")
MAX_IDS = 1000  # of one labelling, or one filter
MAX_TEXT = 200  # characters of a name in a filter


def unknown(count: int = 1) -> UnknownSuspectError:
    """What is said of ids that are not there, and of those that are not the asker's to see."""
    return UnknownSuspectError("no such suspect" if count == 1 else f"{count} are no suspects here")


def check_ids(ids: Sequence[str]) -> list[str]:
    """The ids without doubles, in order; InputError for none, too many, or what is none."""
    unique = list(dict.fromkeys(ids))
    if not unique:
        raise InputError("no suspect is named")
    if len(unique) > MAX_IDS:
        raise InputError(f"{len(unique)} suspects are too many, at most {MAX_IDS}")
    for one in unique:
        if not ID.match(one):
            raise InputError(f"{one[:80]!r} is not a suspect's id")
    return unique


def check_label(label: str) -> Label:
    """The label; InputError where it is none."""
    for known in LABELS:
        if label == known:
            return known
    raise InputError(f"label {label[:40]!r} is not {', '.join(LABELS[:-1])} or {LABELS[-1]}")


def check_limit(limit: int, most: int) -> None:
    """Raise InputError unless 1 <= limit <= most."""
    if not 1 <= limit <= most:
        raise InputError(f"limit {limit} is not between 1 and {most}")


def check_filter(wanted: Filter) -> None:
    """Raise InputError for names that nobody has, or ids that are none."""
    if wanted.ids is not None:
        check_ids(wanted.ids)
    for name in ("model", "pack", "tenant", "client", "defense"):
        value = getattr(wanted, name)
        if value is not None and (len(value) > MAX_TEXT or "\0" in value):
            raise InputError(f"{name}: not more than {MAX_TEXT} characters, and no NUL")


def described(wanted: Filter) -> str:
    """A filter in few words, for the record: what it leaves out is left out."""
    facts = {
        field.name: value
        for field in dataclasses.fields(wanted)
        if field.name != "ids" and (value := getattr(wanted, field.name)) is not None
    }
    return json.dumps(facts) if facts else "all"
