"""What the demo found out, as numbers and as a table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

VERSION = 1  # of the JSON


@dataclass(frozen=True)
class Row:
    """One kind of traffic; shares of `count` pictures, asked directly and through the gateway.

    unguarded_success: wrong answers from production. guarded_success: wrong answers that reached
    the client, not blocked. Both None for clean pictures. alarms: share blocked; of clean
    pictures, these are false alarms.
    """

    name: str
    count: int
    unguarded_accuracy: float
    unguarded_success: float | None
    guarded_success: float | None
    alarms: float


@dataclass(frozen=True)
class Latency:
    """Median milliseconds of single-image requests from the same client, taken in turns."""

    direct_ms: float
    gateway_ms: float
    requests: int

    @property
    def added_ms(self) -> float:
        """What the gateway adds."""
        return self.gateway_ms - self.direct_ms


@dataclass(frozen=True)
class Report:
    """All numbers of one run."""

    pack: str
    digest: str
    production: Mapping[str, Any]  # architecture, parameters, pictures it was trained on
    false_alarm_budget: float
    calibration_pictures: int
    rows: Sequence[Row]
    sticker: Mapping[str, Any]  # from, to, read_as_wanted
    latency: Latency
    metrics: Mapping[str, float]  # series of /metrics that moved
    card: str  # file with the adaptive numbers
    seed: int
    seconds: float

    def record(self) -> dict[str, Any]:
        """For `--json`."""
        record = {"version": VERSION, **asdict(self)}
        record["latency"]["added_ms"] = self.latency.added_ms
        return record


def render(report: Report) -> Iterator[str]:
    """The table, the latency and the metrics, line by line."""
    yield from _table(report)
    yield ""
    yield from _reading(report)
    yield ""
    latency = report.latency
    yield (
        f"latency, median of {latency.requests} single-image requests: {latency.direct_ms:.1f} ms "
        f"direct, {latency.gateway_ms:.1f} ms through the gateway"
    )
    yield ""
    yield "counted by the gateway, read from its /metrics:"
    yield from (f"  {series} {value:g}" for series, value in report.metrics.items())
    yield ""
    yield "These attacks are static: they know nothing of the gateway. Adaptive attacks know it and"
    yield f"get further; their numbers are in {report.card}."


def _reading(report: Report) -> Iterator[str]:
    """What the columns mean, in three lines."""
    sticker = report.sticker
    share, start, end = percent(sticker["read_as_wanted"]), sticker["from"], sticker["to"]
    yield "Attacked: what production has right. Success: a wrong answer reaches the client."
    yield f"The sticker makes production read {share} of {start} signs as {end}."
    yield (
        f"Alarms on clean signs are false; the budget is {percent(report.false_alarm_budget)} "
        f"(mode enforce, on_flag block)."
    )


HEAD = (
    ("", "pictures", "production", "attack succeeds", "attack succeeds", "alarms"),
    ("", "", "is right", "unguarded", "guarded", "(blocked)"),
)


def _table(report: Report) -> Iterator[str]:
    cells = [*HEAD, *(_cells(row) for row in report.rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEAD[0]))]
    for index, line in enumerate(cells):
        first, *others = line
        text = [first.ljust(widths[0])]
        text += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        yield "  ".join(text).rstrip()
        if index == len(HEAD) - 1:
            yield "─" * (sum(widths) + 2 * (len(widths) - 1))


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        str(row.count),
        percent(row.unguarded_accuracy),
        percent(row.unguarded_success),
        percent(row.guarded_success),
        percent(row.alarms),
    )


def percent(share: float | None) -> str:
    """`12.3 %`, and a dash for nothing."""
    return "–" if share is None else f"{100 * share:.1f} %"
