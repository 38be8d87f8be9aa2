"""Every fault there is, in the order of the table, and the table."""

import re

from tests.end_to_end.peers.servers import ROOT
from tests.faults import audit, defence, embedded, identity, load, network, process, redis, upstream
from tests.faults.frame import FAULTS, Fault, Result

DOCUMENT = ROOT / "deploy" / "docs" / "faults.md"
TITLES = ("fault", "mode", "clients see", "metric", "alert, true after", "recovery")
HEAD = f"| {' | '.join(TITLES)} |\n|{'---|' * len(TITLES)}"
SINCE_1970 = 1e9  # seconds: more is a moment
PARTS = (defence, upstream, network, embedded, process, identity, audit, redis, load)


def all_faults() -> list[Fault]:
    """The matrix."""
    order = [part.__name__ for part in PARTS]
    return sorted(FAULTS, key=lambda one: order.index(one.play.__module__))


def table(results: list[Result]) -> str:
    """The results as Markdown."""
    return "\n".join([HEAD, *(_row(result) for result in results)])


def _row(result: Result) -> str:
    one = result.fault
    if result.wrong:
        return f"| {one.name} | FAILED: {'; '.join(result.wrong)} | | | | |"
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


def write(text: str) -> None:
    """Put the table between the document's marks."""
    marks = re.compile(r"(<!-- faults -->\n).*?(<!-- /faults -->)", re.DOTALL)
    document, count = marks.subn(lambda m: f"{m[1]}{text}\n{m[2]}", DOCUMENT.read_text())
    if count != 1:
        raise ValueError(f"{DOCUMENT.name} has no place for the table")
    DOCUMENT.write_text(document)
