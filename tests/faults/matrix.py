"""Every fault there is, in the order of the table, and the table."""

import re

from tests.end_to_end.peers.servers import ROOT
from tests.faults import (
    audit,
    defence,
    elsewhere,
    embedded,
    identity,
    load,
    network,
    process,
    redis,
    suspects,
    upstream,
)  # fmt: skip
from tests.faults.frame import FAULTS, Fault, Result

DOCUMENT = ROOT / "deploy" / "docs" / "faults.md"
TITLES = ("fault", "mode", "clients see", "metric", "alert, true after", "recovery")
HEAD = f"| {' | '.join(TITLES)} |\n|{'---|' * len(TITLES)}"
FAILED = "| FAILED: "
SINCE_1970 = 1e9  # seconds: more is a moment
MARKS = re.compile(r"(<!-- faults -->\n)(.*?)(<!-- /faults -->)", re.DOTALL)
PARTS = (
    defence,
    upstream,
    network,
    embedded,
    process,
    identity,
    audit,
    redis,
    suspects,
    elsewhere,
    load,
)


def all_faults() -> list[Fault]:
    """The matrix."""
    order = [part.__name__ for part in PARTS]
    return sorted(FAULTS, key=lambda one: order.index(one.play.__module__))


def rows() -> dict[str, str]:
    """The document's rows by the fault's name."""
    found = MARKS.search(DOCUMENT.read_text())
    lines = found[2].strip().splitlines()[2:] if found else []
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines}


def write(result: Result) -> None:
    """Put a fault's row into the document's table, in the place of an older one."""
    known = {**rows(), result.fault.name: _row(result)}
    table = [HEAD, *(known[one.name] for one in all_faults() if one.name in known)]
    lines = "\n".join(table)
    document, count = MARKS.subn(lambda m: f"{m[1]}{lines}\n{m[3]}", DOCUMENT.read_text())
    if count != 1:
        raise ValueError(f"{DOCUMENT.name} has no place for the table")
    DOCUMENT.write_text(document)


def _row(result: Result) -> str:
    one = result.fault
    if result.wrong:
        return f"| {one.name} {FAILED}{'; '.join(result.wrong)} | | | | |"
    seen = ", ".join(f"{what} ({count})" for what, count in result.outcomes.most_common())
    moved = f"`{one.metric}` {_moved(result.before, result.then)}"
    alert = f"{one.alert} {result.alert_after:.1f} s"
    return (
        f"| {one.name} | {one.mode.value} | {seen} | {moved} | {alert} | {result.recovery:.1f} s |"
    )


def _moved(before: float | None, then: float | None) -> str:
    if before is not None and then is not None and min(before, then) > SINCE_1970:
        return f"{then - before:+.0f} s"
    return " → ".join("none" if value is None else f"{value:g}" for value in (before, then))
