"""The gate's report as one HTML page: no scripts, nothing fetched, two themes.

Every cell is a scale with a ring for the current detector and a dot for the candidate; the shade
behind them is what the candidate may lose.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib import resources

from guard.evaluation.card import percent
from guard.evaluation.compared import LEVEL, Row
from guard.evaluation.gate import GateReport
from guard.evaluation.gatereport import (
    BY_CLASS,
    Column,
    change,
    columns,
    counted,
    heading,
    outcome,
    rule,
    sections,
)

STYLE = "gatepage.css"
LISTED = 12  # reasons above the tables
WIDTH, HEIGHT, EDGE = 132, 18, 7  # of a cell's drawing, px
KINDS = ("refused", "worse", "same", "better", "told")
STEP = 0.05  # scales end at a multiple of it


def page(report: GateReport, *, title: str) -> str:
    """The whole page. title: what was compared."""
    style = resources.files("guard.evaluation").joinpath(STYLE).read_text()
    body = "\n".join(_body(report, title))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def scale(rows: Sequence[Row]) -> float:
    """Where the scale of these rows ends: 1, or sooner where all shares are small."""
    most = max((max(row.current, row.candidate) for row in rows), default=0.0)
    return min(1.0, max(STEP, math.ceil(most / STEP - 1e-9) * STEP))


def verdict(row: Row) -> str:
    """How a cell is coloured. What may be chance is the same; told cannot refuse."""
    if row.refused:
        return "refused"
    if row.blind or not row.binding:
        return "told"
    if min(row.chance, row.luck) > LEVEL:
        return "same"
    return "better" if row.won > row.lost else "worse"


def _body(report: GateReport, title: str) -> Iterator[str]:
    passed = "passed" if report.passed else "refused"
    yield f'<header><p class="mark {passed}">{passed}</p><h1>{escape(title)}</h1>'
    yield f"<p>{escape(outcome(report))}</p>"
    if report.against:
        yield f'<p class="soft">Against <code>{escape(report.against)}</code></p>'
    yield "</header>"
    if report.reasons:
        items = "".join(f"<li>{escape(reason)}</li>" for reason in report.reasons[:LISTED])
        more = len(report.reasons) - LISTED
        items += f"<li>and {more} more, marked below</li>" if more > 0 else ""
        yield f'<section class="why"><h2>Why it is refused</h2><ul>{items}</ul></section>'
    yield (
        f'<section><p class="soft">{escape(rule(report))}</p>'
        '<p class="legend"><svg width="132" height="18" aria-hidden="true">'
        '<rect class="may" x="30" y="3" width="34" height="12"/>'
        '<line class="axis" x1="7" x2="125" y1="9" y2="9"/>'
        '<circle class="now" cx="64" cy="9" r="4.5"/><circle class="new" cx="86" cy="9" r="4.5"/>'
        "</svg> ring: current, dot: candidate, shade: what it may lose. Percent.</p></section>"
    )
    for part, names in sections(report).items():
        yield from _section(part, names)


def _section(part: str, names: Mapping[str, Mapping[Column, Row]]) -> Iterator[str]:
    rows = [row for row_of in names.values() for row in row_of.values()]
    wanted, end = columns(names), scale(rows)
    said = counted(rows)
    seen = Counter(map(verdict, rows))
    told = ", ".join(f"{seen[kind]} {kind}" for kind in KINDS if seen[kind])
    head = (
        f"<h2>{escape(part)}</h2>"
        f'<p class="soft">{escape(said)}, scale 0 to {percent(end)}; {told}</p>'
    )
    table = "\n".join(_table(names, wanted, end))
    if part in BY_CLASS:
        opened = " open" if seen["refused"] else ""
        yield f"<section><details{opened}><summary>{head}</summary>{table}</details></section>"
    else:
        yield f"<section>{head}{table}</section>"


def _table(
    names: Mapping[str, Mapping[Column, Row]], wanted: Sequence[Column], end: float
) -> Iterator[str]:
    heads = "".join(f'<th scope="col">{escape(heading(column))}</th>' for column in wanted)
    yield '<div class="wide"><table><thead><tr><th scope="col"></th>'
    yield f'<th scope="col" class="count">pictures</th>{heads}</tr></thead><tbody>'
    for name, rows in names.items():
        count = max(row.images for row in rows.values())
        cells = "".join(_cell(rows.get(column), end) for column in wanted)
        yield f'<tr><th scope="row">{escape(name)}</th><td class="count">{count}</td>{cells}</tr>'
    yield "</tbody></table></div>"


def _cell(row: Row | None, end: float) -> str:
    if row is None:
        return '<td class="none">-</td>'
    kind = verdict(row)
    note = (
        f"{row.lost} lost, {row.won} won of {row.images}; tolerance "
        f"{percent(row.tolerance)} points; equals look this bad with p = {row.chance:.2g}"
    )
    mark = ' <b class="no">refused</b>' if row.refused else ""
    return (
        f'<td class="{kind}" title="{escape(note)}">{_dots(row, end)}'
        f"<span>{escape(change(row))}{mark}</span></td>"
    )


def _dots(row: Row, end: float) -> str:
    """The ring, the dot and the shade."""

    def at(share: float) -> float:
        inside = min(max(share / end, 0.0), 1.0)
        return round(EDGE + inside * (WIDTH - 2 * EDGE), 1)

    worst = row.current + (-row.tolerance if row.more_is_better else row.tolerance)
    low, high = sorted((at(row.current), at(worst)))
    middle = HEIGHT // 2
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" aria-hidden="true">'
        f'<rect class="may" x="{low}" y="3" width="{round(high - low, 1)}" height="{HEIGHT - 6}"/>'
        f'<line class="axis" x1="{EDGE}" x2="{WIDTH - EDGE}" y1="{middle}" y2="{middle}"/>'
        f'<line class="way" x1="{at(row.current)}" x2="{at(row.candidate)}" y1="{middle}" '
        f'y2="{middle}"/>'
        f'<circle class="now" cx="{at(row.current)}" cy="{middle}" r="4.5"/>'
        f'<circle class="new" cx="{at(row.candidate)}" cy="{middle}" r="4.5"/></svg>'
    )
