"""The numbers as a table and as JSON."""

import json
from dataclasses import replace

from guard.demo.report import Report, percent, render


def test_columns_stand_under_each_other(report: Report) -> None:
    """Every number ends where its heading ends, however wide the names are."""
    head, *_ = lines = list(render(report))
    ends = {head.index(word) + len(word) for word in ("pictures", "production", "alarms")}
    for line in lines[3:6]:
        assert all(line[end - 1] in "%–0123456789" and line[end : end + 1] != "%" for end in ends)
    assert lines[3].split()[-2:] == ["1.2", "%"]
    assert len({len(line) for line in lines[2:6]}) == 1


def test_the_table_fits_a_terminal(report: Report) -> None:
    """No line is wider than 100 columns and none holds a line break."""
    assert max(len(line) for line in render(report)) <= 100
    assert not any("\n" in line for line in render(report))


def test_it_says_what_it_does_not_promise(report: Report) -> None:
    """The last lines call the attacks static and name the file with the adaptive numbers."""
    text = "\n".join(render(report))
    assert "static" in text
    assert "models/signs/MODEL_CARD.md" in text


def test_metrics_are_shown_as_scraped(report: Report) -> None:
    """Each series appears with its value."""
    assert '  guard_verdicts_total{decision="ALLOW",model="signs"} 724' in render(report)


def test_clean_pictures_have_no_attack_success(report: Report) -> None:
    """Where nothing was attacked there is a dash, not a zero."""
    assert percent(None) == "–"
    assert list(render(report))[3].count("–") == 2


def test_the_record_is_json_with_the_same_numbers(report: Report) -> None:
    """`--json` carries every field, the rows by name, and the added latency."""
    record = json.loads(json.dumps(report.record()))
    assert set(record) == {"version", *(vars(report))}
    assert record["rows"][1]["guarded_success"] == 0.1
    assert record["rows"][0]["unguarded_success"] is None
    assert record["latency"]["added_ms"] == 2.5
    assert json.loads(json.dumps(replace(report, rows=[]).record()))["rows"] == []
