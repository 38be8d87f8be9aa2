"""Suspects as lines and as JSON, for a terminal."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from guard.suspects.record import Row, Suspect


def record(row: Row, suspect: Suspect | None = None) -> dict[str, Any]:
    """As JSON, numbers that are not finite as null; the picture is left out."""
    told: dict[str, Any] = {
        "id": row.id,
        "taken": utc(row.taken),
        "model": row.model,
        "pack": row.pack,
        "tenant": row.tenant,
        "client": row.client,
        "sampled": row.sampled,
        "decision": row.decision.name,
        "p_value": _number(row.p_value),
        "predicted": row.predicted,
        "alarms": list(row.alarms),
        "seen": row.seen,
        "bytes": row.bytes,
        "state": row.state,
        "label": row.label,
        "reviews": [
            {
                "reviewer": one.reviewer,
                "label": one.label,
                "at": utc(one.at),
                "source": one.source,
            }
            for one in row.reviews
        ],
    }
    if suspect is not None:
        told |= {
            "verdict": suspect.verdict.record(),
            "budget": suspect.budget,
            "probabilities": [_number(float(p)) for p in suspect.probabilities],
            "upstream": suspect.upstream
            if suspect.upstream is None
            else [_number(float(p)) for p in suspect.upstream],
            "shape": list(suspect.image.shape),
            "trace": suspect.trace,
        }
    return told


def line(row: Row) -> str:
    """One line: when, what was decided, how suspicious, which class, what reviewers say."""
    said = row.label or row.state
    words = ",".join(one.label for one in row.reviews)
    return plain(
        f"{row.id}  {utc(row.taken)}  {row.model}  {row.decision.name:7}  p={row.p_value:.4f}  "
        f"class {row.predicted}  x{row.seen}  {said}{f' ({words})' if words else ''}"
        f"{'  sampled' if row.sampled else ''}  {','.join(row.alarms)}"
    ).rstrip()


def lines(row: Row, suspect: Suspect | None) -> Iterator[str]:
    """One line for each thing that is known."""
    told = record(row, suspect)
    reviews, verdict = told.pop("reviews"), told.pop("verdict", None)
    for name, value in told.items():
        yield plain(f"{name:14} {_short(value)}")
    for one in reviews:
        who = "client " if one["source"] == "client" else ""
        yield plain(f"{'review':14} {one['label']} by {who}{one['reviewer']}, {one['at']}")
    for name, value in (verdict or {}).get("scores", {}).items():
        p_value = verdict["p_values"].get(name)
        yield plain(f"{'score':14} {name} {_short(value)}, p {_short(p_value)}")


def utc(seconds: float) -> str:
    """A time as people read it."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, OSError, ValueError):
        return f"{seconds:g}"


def plain(text: str) -> str:
    """Without what a terminal would obey: names and traces are other people's words."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return " ".join(_short(one) for one in value) or "-"
    return "-" if value is None or value == "" else str(value)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
