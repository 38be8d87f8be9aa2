"""Records as lines, for people and programs; it shows, `verify` is what checks."""

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from guard.errors import AuditError, ConfigError
from guard.gateway.audit.record import content
from guard.gateway.audit.segments import segment_files


def records(
    folder: Path,
    *,
    events: Collection[str] = (),
    actors: Collection[str] = (),
    since: str = "",
    until: str = "",
) -> Iterator[dict[str, Any]]:
    """The records that match, in order; what is no record is shown as an event "unreadable".

    events: names, or beginnings such as "refused". actors: keyed hashes. since, until: times as in
    the log, or beginnings of them: "2026-11-20" means that day.
    """
    try:
        files = segment_files(folder)
        if not files:
            raise ConfigError(f"{folder} holds no audit log", key="folder")
        for _, path in files:
            for line in path.read_bytes().split(b"\n"):
                one = _read(line) if line else None
                if one is not None and _matches(one, events, actors, since, until):
                    yield one
    except OSError as error:
        raise AuditError(f"{error.filename}: {error.strerror}") from error


def plain(one: dict[str, Any]) -> str:
    """One record as a line; text in it cannot steer a terminal."""
    details = one["details"] if isinstance(one["details"], dict) else {}
    said = " ".join(f"{key}={json.dumps(value).strip(chr(34))}" for key, value in details.items())
    parts = (one["time"], f"#{one['seq']}", one["event"], one["outcome"], one["actor"] or "-")
    line = " ".join(str(part) for part in parts) + (f" {said}" if said else "")
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def _read(line: bytes) -> dict[str, Any]:
    try:
        one = content(line)
    except ValueError:
        one = {"event": "unreadable", "details": {"bytes": len(line)}}
    empty = {"seq": "?", "time": "?", "event": "?", "actor": "", "outcome": "?", "details": {}}
    return {**empty, **one}


def _matches(
    one: dict[str, Any],
    events: Collection[str],
    actors: Collection[str],
    since: str,
    until: str,
) -> bool:
    event, time = str(one["event"]), str(one["time"])
    return (
        (not events or any(event == name or event.startswith(f"{name}.") for name in events))
        and (not actors or one["actor"] in actors)
        and time >= since
        and (not until or time <= until or time.startswith(until))
    )
