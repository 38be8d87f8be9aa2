"""Addresses to filters and back."""

from urllib.parse import parse_qsl

import pytest

from guard.console.filters import asked
from guard.errors import InputError
from guard.suspects.record import Filter
from guard.verdict import Decision

WHOLE = {
    "model": "signs", "class": "7", "defense": "noise", "decision": "FLAG", "state": "open",
    "label": "benign", "from": "2026-11-20T18:30", "until": "2026-11-20T19:30", "p": "0.001",
    "sampled": "no", "client": "abc", "tenant": "north",
}  # fmt: skip


def test_every_field_reaches_the_filter() -> None:
    """A whole query becomes a whole filter."""
    found = asked(WHOLE)
    assert found.filter == Filter(
        model="signs", predicted=7, defense="noise", decision=Decision.FLAG, state="open",
        label="benign", taken_from=1795199400.0, taken_before=1795203000.0,
        p_value_at_most=0.001, sampled=False, client="abc", tenant="north",
    )  # fmt: skip


def test_a_query_comes_back_as_it_was() -> None:
    """What a page links to asks for the same, on another page."""
    values = {**WHOLE, "order": "oldest", "view": "pictures"}
    found = asked(values)
    assert dict(parse_qsl(found.query())) == values
    assert dict(parse_qsl(found.query(after="x&y"))) == {**values, "after": "x&y"}
    assert "view" not in found.query(view=None)


def test_empty_fields_do_not_matter() -> None:
    """A form sends all its fields; those left empty are left out."""
    assert asked(dict.fromkeys(WHOLE, " ")).filter == Filter()
    assert asked({"unknown": "x"}).filter == Filter()


@pytest.mark.parametrize(
    "values",
    [
        {"class": "-1"}, {"class": "1e3"}, {"class": "٣"}, {"class": "9" * 12}, {"p": "2"},
        {"p": "nan"}, {"p": "x"}, {"decision": "MAYBE"}, {"state": "x"}, {"label": "good"},
        {"from": "yesterday"}, {"until": "9999-99-99T00:00"}, {"sampled": "1"}, {"order": "random"},
        {"model": "x" * 500}, {"after": "x" * 500},
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(values: dict[str, str]) -> None:
    """The message names the field."""
    with pytest.raises(InputError, match=next(iter(values))):
        asked(values)
