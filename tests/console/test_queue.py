"""The queue: rows, filters, pages, counters, files."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from guard.console import queue
from guard.console.users import User, write_users
from tests.console.browsing import Browser
from tests.console.stock import BEGAN, Stock, disturbed, judged, password_hash, stocked

EVIL = "<script>alert(1)</script>\"'><img src=x>"


def ids_in(text: str) -> list[str]:
    """The suspects of a page, in its order."""
    return list(dict.fromkeys(re.findall(r'href="/suspects/([a-z0-9]{20,})"', text)))


def test_the_newest_come_first(stock: Stock, ada: Browser) -> None:
    """All are there, each once, with class and p-value."""
    text = ada.get("/suspects").text
    assert ids_in(text) == stock.ids[::-1]
    assert "Speed" in text
    assert "12</b> open" in text


def test_order_and_filters_reach_the_store(stock: Stock, ada: Browser) -> None:
    """What is asked for is what comes, and the form shows what was asked."""
    assert ids_in(ada.get("/suspects?order=oldest").text) == stock.ids
    sampled = ada.get("/suspects?sampled=yes").text
    assert ids_in(sampled) == [stock.ids[10]]
    assert '<option value="yes" selected>' in sampled
    flagged = ids_in(ada.get("/suspects?decision=FLAG").text)
    wanted = [one for one in stock.ids if stock.store.row(one).decision.name == "FLAG"]
    assert flagged == wanted[::-1]
    assert 0 < len(flagged) < 12
    first = ids_in(ada.get("/suspects?from=2026-10-14T00:00&p=0.0005&defense=upstream").text)
    assert 0 < len(first) < 12


def test_a_filter_that_nothing_fits_says_so(ada: Browser) -> None:
    """An empty page is no error."""
    answer = ada.get("/suspects?model=other")
    assert answer.status == 200
    assert "No suspect fits these filters." in answer.text


@pytest.mark.parametrize("query", ["p=3", "state=x", "after=%00", "class=a", "from=soon"])
def test_a_broken_address_is_explained(ada: Browser, query: str) -> None:
    """One plain page, HTTP 400, no traceback."""
    answer = ada.get(f"/suspects?{query}")
    assert answer.status == 400
    assert "That cannot be understood" in answer.text
    assert "Traceback" not in answer.text


def test_pages_follow_each_other(
    stock: Stock, ada: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Page by page all come, each once, with the filter kept."""
    monkeypatch.setattr(queue, "ROWS", 5)
    found, path = [], "/suspects?order=oldest"
    while path:
        text = ada.get(path).text
        found += ids_in(text)
        more = re.search(r'rel="next" href="([^"]+)">More', text)
        path = more[1].replace("&amp;", "&") if more else ""
        assert not path or "order=oldest" in path
    assert found == stock.ids


def test_pictures_are_fetched_one_by_one(stock: Stock, ada: Browser) -> None:
    """The page with pictures holds none: each is a request of its own, and a record of its own."""
    text = ada.get("/suspects?view=pictures").text
    assert text.count('/image.png"') == 12
    assert "data:image" not in text
    answer = ada.get(f"/suspects/{stock.ids[0]}/image.png")
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.body.startswith(b"\x89PNG")


def test_what_clients_wrote_is_escaped(tmp_path: Path) -> None:
    """Names out of a hostile store are text on the page, in every place."""
    with stocked(tmp_path, count=1) as stock:
        (hostile,) = judged(stock.store, disturbed(1, seed=9), model=EVIL)
        hostile = replace(hostile, trace=EVIL, taken=BEGAN + 9999)
        stock.store.put([hostile])
        ada = Browser(stock.port.url).log_in()
        for path in ("/suspects", f"/suspects/{hostile.id}", "/suspects?view=pictures"):
            text = ada.get(path).text
            assert "<script>alert" not in text
            assert "<img src=x>" not in text
        assert "&lt;script&gt;alert(1)" in ada.get("/suspects").text
        assert "&lt;script&gt;" in ada.get("/suspects?client=" + "%3Cscript%3E").text


def test_counters_follow_labels(fresh: Stock) -> None:
    """What a page polls is what the store says now."""
    ada = Browser(fresh.port.url).log_in()
    before = json.loads(ada.get("/counts.json").body)
    assert (before["total"], before["open"], before["agreed"], before["labelled"]) == (12, 12, 0, 0)
    ada.post("/label", {"id": fresh.ids[:3], "label": "benign"})
    after = json.loads(ada.get("/counts.json").body)
    assert (after["open"], after["agreed"], after["benign"], after["labelled"]) == (9, 3, 3, 3)


def test_rows_come_as_files(fresh: Stock) -> None:
    """CSV and JSON lines hold the same rows, filtered as the page was, and no picture."""
    ada = Browser(fresh.port.url).log_in()
    ada.post("/label", {"id": fresh.ids[:2], "label": "adversarial"})
    answer = ada.get("/export.csv?label=adversarial")
    assert "attachment" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    lines = [
        json.loads(line) for line in ada.get("/export.jsonl?label=adversarial").text.splitlines()
    ]
    assert [row["id"] for row in rows] == [line["id"] for line in lines] == fresh.ids[1::-1]
    assert rows[0]["reviews"] == "user:ada=adversarial"
    assert lines[0]["class_name"]
    assert ada.get("/export.exe").status == 400


def test_a_spreadsheet_runs_nothing() -> None:
    """A cell that would be a formula is text; numbers stay numbers."""
    assert queue._cell("=1+1") == "'=1+1"
    assert queue._cell("@SUM(A1)") == "'@SUM(A1)"
    assert queue._cell(["-x", "y"]) == "'-x y"
    assert queue._cell(-1.5) == -1.5
    assert queue._cell("plain") == "plain"


def test_a_tenants_analyst_sees_that_tenants(tmp_path: Path) -> None:
    """Others' suspects are in no list, no counter, no file, and not there by address."""
    with stocked(tmp_path, count=2) as stock:
        (own,) = judged(stock.store, disturbed(1, seed=8), tenant="north")
        stock.store.put([own])
        path = Path(stock.config.console.users_file)
        write_users(path, [User("nora", ("analyst",), "north", password_hash())])
        nora = Browser(stock.port.url).log_in("nora")
        assert ids_in(nora.get("/suspects").text) == [own.id]
        assert json.loads(nora.get("/counts.json").body)["total"] == 1
        assert nora.get("/export.jsonl").text.count("\n") == 1
        assert nora.get(f"/suspects/{own.id}").status == 200
        for path_of in (f"/suspects/{stock.ids[0]}", f"/suspects/{stock.ids[0]}/image.png"):
            assert nora.get(path_of).status == 404
        assert nora.post("/label", {"id": stock.ids[0], "label": "benign"}).status == 404
        assert nora.get("/suspects?tenant=south").status == 403


def test_roles_see_what_they_may(stock: Stock) -> None:
    """An operator sees counters and no suspect, a trainer neither; no buttons lead nowhere."""
    olga = Browser(stock.port.url)
    olga.post("/login", {"name": "olga", "password": "correct horse battery"})
    page = olga.get("/suspects")
    assert page.status == 200
    assert stock.ids[0] not in page.text
    assert "Review next" not in page.text
    assert olga.get(f"/suspects/{stock.ids[0]}").status == 403
    assert olga.get(f"/suspects/{stock.ids[0]}/image.png").status == 403
    assert olga.get("/review").status == 403
    assert olga.get("/export.csv").status == 403
    tom = Browser(stock.port.url)
    tom.post("/login", {"name": "tom", "password": "correct horse battery"})
    assert tom.get("/suspects").status == 403
    assert tom.get("/counts.json").status == 403
