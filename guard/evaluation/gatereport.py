"""The gate's report as Markdown, for a candidate's card."""

from collections.abc import Iterator, Mapping, Sequence

from guard.evaluation.card import percent, table
from guard.evaluation.compared import ENOUGH, HEADS, LEVEL, Row
from guard.evaluation.gate import ALL, ATTACKS, CLASS_ALARMS, CLASS_TPR, TIMES, GateReport

Column = tuple[str, float]  # head and budget
BY_CLASS = (CLASS_ALARMS, CLASS_TPR)
SHORT: Mapping[str, str] = {"upstream": "with upstream", "alone": "alone"}


def markdown(report: GateReport) -> str:
    """The report: the outcome, every row of a kind, and the class that lost most."""
    return "\n\n".join(_parts(report)) + "\n"


def outcome(report: GateReport) -> str:
    """One line."""
    if report.problems:
        return f"Refused: {report.problems[0]}."
    if report.refused:
        count, total = len(report.refused), len(report.rows)
        return f"Refused: {count} of {total} rows are worse beyond tolerance."
    if not report.rows:
        return "Refused: there is nothing to compare."
    bound = [row for row in report.rows if row.binding]
    blind = sum(row.blind for row in bound)
    unseen = f" {blind} have too few pictures to tell." if blind else ""
    return f"Passed: none of {len(bound)} rows is worse beyond tolerance.{unseen}"


def rule(report: GateReport) -> str:
    """How a row is judged."""
    others = [head for head in HEADS if head not in report.heads]
    told = "".join(f" Rows {HEADS[head]} are told and refuse nothing." for head in others)
    points = [100 * report.tolerance * TIMES[part] for part in (ALL, ATTACKS, CLASS_TPR)]
    return (
        f"Same pictures on both sides. All together may lose {points[0]:g} of a hundred, a single "
        f"attack or corruption {points[1]:g}, a single class {points[2]:g}. A row with fewer than "
        f"{ENOUGH} pictures is refused only for what equals hardly ever show (McNemar, exact; "
        f"{100 * LEVEL:g}% for a column of a table). Where few calibration pictures lie above a "
        "threshold, what that threshold may be off by is added." + told
    )


def sections(report: GateReport) -> dict[str, dict[str, dict[Column, Row]]]:
    """Rows by part, name, and head and budget, in the report's order."""
    found: dict[str, dict[str, dict[Column, Row]]] = {}
    for row in report.rows:
        names = found.setdefault(row.part, {})
        names.setdefault(row.name, {})[row.head, row.budget] = row
    return found


def columns(names: Mapping[str, Mapping[Column, Row]]) -> list[Column]:
    """The heads and budgets that occur in one part."""
    return list(dict.fromkeys(column for row in names.values() for column in row))


def heading(column: Column) -> str:
    """A head and a budget, for a table's head."""
    return f"{SHORT[column[0]]}, {100 * column[1]:g}%"


def counted(rows: Sequence[Row]) -> str:
    """What the shares of these rows are."""
    return " or ".join(dict.fromkeys(row.what for row in rows))


def _parts(report: GateReport) -> Iterator[str]:
    yield f"## Compared with the pack before\n\n{outcome(report)} {rule(report)}"
    if report.reasons:
        yield "\n".join(f"* {reason}" for reason in report.reasons)
    for part, names in sections(report).items():
        shown = names
        if part in BY_CLASS:
            worst = max(names, key=lambda name: max(row.loss for row in names[name].values()))
            shown = {f"worst of {len(names)}: {worst}": names[worst]}
        wanted = columns(names)
        what = counted([row for rows in names.values() for row in rows.values()])
        head = [f"{part}: {what}", "pictures", *map(heading, wanted)]
        yield table(head, ([name, *_cells(rows, wanted)] for name, rows in shown.items()))


def _cells(rows: Mapping[Column, Row], wanted: list[Column]) -> Iterator[str]:
    yield str(max(row.images for row in rows.values()))
    for column in wanted:
        row = rows.get(column)
        mark = " **refused**" if row is not None and row.refused else ""
        yield f"{change(row)}{mark}" if row is not None else "-"


def change(row: Row) -> str:
    """What it was and what it becomes, in percent."""
    return f"{percent(row.current)} → {percent(row.candidate)}"
