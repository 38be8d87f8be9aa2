"""The gate's report, as a page and as Markdown."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from guard.evaluation.gate import GateReport, Struck, compare
from guard.evaluation.gatepage import page, scale, verdict
from guard.evaluation.gatereport import markdown, outcome
from tests.evaluation.gates import ATTACKS, BENIGN, CLASSES, broken, holdout, side

ROWS = holdout()


@pytest.fixture(scope="module")
def passed() -> GateReport:
    """A detector against itself, with an adaptive attack."""
    flags = np.arange(40) < 10
    struck = Struck("adaptive PGD 8/255", "alone", 0.05, flags, flags)
    return compare(side(), side(), holdout=ROWS, classes=CLASSES, adaptive=[struck], against="x1")


@pytest.fixture(scope="module")
def refused() -> GateReport:
    """One that misses half of PGD."""
    worse = broken(ROWS, lambda rows: rows.kind == rows.kinds.index("PGD"))
    return compare(side(), worse, holdout=ROWS, classes=("<b>stop</b>", "yield", "speed"))


class Whole(HTMLParser):
    """Checks that every tag that is opened is closed, in order."""

    EMPTY = frozenset(("meta", "line", "circle", "rect"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, _attributes: object) -> None:
        """Remember it."""
        self.seen.append(tag)
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, _attributes: object) -> None:
        """Closed at once."""
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """It must be the last that was opened."""
        assert self.open.pop() == tag


def test_the_page_is_whole_and_stands_alone(passed: GateReport, refused: GateReport) -> None:
    """Tags are balanced, nothing runs and nothing is fetched."""
    for report in (passed, refused):
        text = page(report, title="a-r1 against a")
        found = Whole(text)
        assert not found.open
        assert not {"script", "link", "img", "iframe"} & set(found.seen)
        assert "http" not in text
        assert found.seen.count("td") == found.seen.count("svg") - 1 + len(
            {(row.part, row.name) for row in report.rows}
        ) + text.count('class="none"')


def test_the_page_shows_every_row_and_both_sides(passed: GateReport) -> None:
    """Every name, every pair of shares, the outcome and what it was compared with."""
    text = page(passed, title="a-r1 against a")
    for name in (*BENIGN, *ATTACKS, *CLASSES, "adaptive PGD 8/255"):
        assert name in text
    assert text.count("→") == len(passed.rows)
    assert '<p class="mark passed">passed</p>' in text
    assert "<code>x1</code>" in text


def test_a_refused_row_is_coloured_and_listed_first(refused: GateReport) -> None:
    """The reasons stand above the tables, the row's cell is marked, its class is escaped."""
    text = page(refused, title="b <against> a")
    assert text.index("Why it is refused") < text.index("<table>")
    assert text.count('<b class="no">refused</b>') == len(refused.refused)
    assert "<b>stop" not in text
    assert "&lt;b&gt;stop" in text
    assert "b &lt;against&gt; a" in text


def test_the_card_names_what_refuses(passed: GateReport, refused: GateReport) -> None:
    """The Markdown has a table a part, the outcome, and a mark in the refused cells."""
    assert outcome(passed).startswith(f"Passed: none of {len(passed.rows)} rows")
    text = markdown(refused)
    assert re.search(r"\| PGD \| 300 \|.*\*\*refused\*\*", text)
    assert f"Refused: {len(refused.refused)} of {len(refused.rows)} rows" in text
    assert "worst of 3: class" in text
    assert "**refused**" not in markdown(passed)


def test_a_void_comparison_says_why() -> None:
    """Without rows there are no tables, only the reason."""
    report = GateReport((), ("evidence.onnx is another",), "x1")
    assert outcome(report) == "Refused: evidence.onnx is another."
    assert "evidence.onnx is another" in page(report, title="t")
    assert outcome(GateReport(())) == "Refused: there is nothing to compare."


def test_colours_are_for_more_than_chance(passed: GateReport, refused: GateReport) -> None:
    """A tie is the same, a loss beyond tolerance refused, its mirror better."""
    assert {verdict(row) for row in passed.rows} == {"same"}
    assert "refused" in {verdict(row) for row in refused.rows}
    better = broken(ROWS, lambda rows: rows.kind == rows.kinds.index("PGD"))
    back = compare(better, side(), holdout=ROWS)
    assert {verdict(row) for row in back.rows if row.name == "PGD"} == {"better"}


def test_scales_end_at_a_round_share(passed: GateReport) -> None:
    """Small shares get a scale of their own, of steps of five percent."""
    alarms = [row for row in passed.rows if row.what == "false alarms"]
    most = max(row.current for row in alarms)
    assert most <= scale(alarms) < most + 0.05 + 1e-9
    assert scale([]) == 0.05
