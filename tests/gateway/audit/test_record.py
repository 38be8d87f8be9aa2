"""One line of the log: what it may hold, and that it is read as it was written."""

import json

import pytest

from guard.gateway.audit import record
from guard.gateway.audit.record import (
    MAX_DETAILS,
    MAX_TEXT,
    TAIL,
    ZERO,
    Entry,
    body,
    content,
    details_json,
    entry,
    finish,
    take_apart,
    utc,
)

WHAT = Entry(utc(0), "admin.call", "1:ab", "ok", '{"rpc":"Status"}')


def test_a_line_is_what_the_document_says() -> None:
    """Its members, their order, the link behind them."""
    linked = body(7, 2, WHAT)
    assert linked == (
        b'{"seq":7,"key":2,"time":"1970-01-01T00:00:00.000000Z","event":"admin.call",'
        b'"actor":"1:ab","outcome":"ok","details":{"rpc":"Status"}'
    )
    line = finish(linked, b"\xab" * 32)
    assert line == linked + b',"link":"' + b"ab" * 32 + b'"}\n'
    assert len(line) - len(linked) == TAIL + 1
    assert ZERO == b"\0" * 32


def test_taken_apart_it_is_what_went_in() -> None:
    """Every part, the linked bytes, and the link that it claims."""
    linked = body(7, 2, WHAT)
    one = take_apart(finish(linked, b"\xab" * 32)[:-1])
    assert one is not None
    assert (one.seq, one.key, one.time, one.event) == (7, 2, WHAT.time, "admin.call")
    assert (one.body, one.link) == (linked, b"\xab" * 32)


def test_details_are_cut_and_plain() -> None:
    """So many, so long, so deep, and no longer; what is none of it is named by its type."""
    shown = json.loads(details_json({str(n): n for n in range(MAX_DETAILS + 1)}))
    assert list(shown) == [str(n) for n in range(MAX_DETAILS)]
    shown = json.loads(
        details_json(
            {
                "t" * 41: "x" * (MAX_TEXT + 1),
                "list": ["y" * (MAX_TEXT + 1)] * (MAX_DETAILS + 1),
                "tuple": ("a", "b"),
                "mixed": ["a", 1],
                "large": 2**63,
                "small": -(2**63) + 1,
                "edge": 2**63 - 1,
                "yes": True,
                "bytes": b"b",
                "float": 0.5,
                "none": None,
                "dict": {"a": 1},
                3: "number",
            }
        )
    )
    assert shown["t" * 40] == "x" * MAX_TEXT
    assert shown["list"] == ["y" * MAX_TEXT] * MAX_DETAILS
    assert shown["tuple"] == ["a", "b"]
    assert (shown["mixed"], shown["large"]) == ("<list>", "<int>")
    assert (shown["small"], shown["edge"], shown["yes"]) == (-(2**63) + 1, 2**63 - 1, True)
    assert (shown["bytes"], shown["float"]) == ("<bytes>", "<float>")
    assert (shown["none"], shown["dict"], shown["3"]) == ("<NoneType>", "<dict>", "number")
    assert details_json({"a": 1, "b": [""]}) == '{"a":1,"b":[""]}'


def test_an_entry_is_of_now_and_its_outcome_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock's time to the microsecond; nobody, "ok" and no details where nothing is said."""
    monkeypatch.setattr(record.time, "time", lambda: 1.5)
    assert entry("other") == Entry("1970-01-01T00:00:01.500000Z", "other", "", "ok", "{}")
    assert entry("other", outcome="x" * 41).outcome == "x" * 40


def test_content_reads_the_members() -> None:
    """JSON objects only; everything else, however deep, is a ValueError."""
    assert content(b'{"a":1}') == {"a": 1}
    for bad in (b"[]", b"1", b"{", b"\xff", b"[" * 5000):
        with pytest.raises(ValueError, match=r".*"):
            content(bad)
