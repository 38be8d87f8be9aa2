"""One suspect's page."""

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from guard.errors import StoreError
from guard.suspects.record import Filter
from tests.console.browsing import Browser
from tests.console.stock import Stock, disturbed, judged, pipeline, stocked
from tests.console.test_log_in import Remembered


def pictures(text: str) -> list[np.ndarray]:
    """The pictures inside a page."""
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in found]


def test_the_picture_is_the_one_that_came(stock: Stock, ada: Browser) -> None:
    """The first picture is the original, bit for bit at 8 bits; the others are as large."""
    suspect = stock.store.get(stock.ids[3])
    shown = pictures(ada.get(f"/suspects/{suspect.id}").text)
    levels = np.rint(suspect.image * 255).astype(np.uint8).transpose(1, 2, 0)
    assert (shown[0] == levels).all()
    assert {one.shape for one in shown} == {(32, 32, 3)}
    served = ada.get(f"/suspects/{suspect.id}/image.png").body
    assert (np.asarray(Image.open(io.BytesIO(served))) == levels).all()


def test_views_are_the_packs_own(stock: Stock, ada: Browser) -> None:
    """Every view that the pack explains is there, beside what it took away."""
    suspect = stock.store.get(stock.ids[0])
    text = ada.get(f"/suspects/{suspect.id}").text
    views = pipeline().explain(suspect.image, suspect.noise_index).views
    assert len(views) >= 4
    shown = pictures(text)
    assert len(shown) == 2 + 2 * len(views)
    median = next(view for name, view in views.items() if "median3" in name)
    levels = np.rint(median * 255).astype(np.uint8).transpose(1, 2, 0)
    assert any((one == levels).all() for one in shown)
    for title in ("Fewer bits", "Median 2×2", "Median 3×3", "JPEG-like"):
        assert f"<b>{title}</b>" in text


def test_every_score_and_answer_is_told(stock: Stock, ada: Browser) -> None:
    """Each defence with its p-value, the detector first; each member, ensemble and upstream."""
    suspect = stock.store.get(stock.ids[0])
    text = ada.get(f"/suspects/{suspect.id}").text
    why = text.partition('id="why"')[2].partition("</table>")[0]
    rows = re.findall(r'<th scope="row">([^<]+?)\s*<', why)
    assert rows[0].strip() == "Detector"
    assert len(rows) == len(suspect.verdict.p_values)
    assert why.count(">alarm<") == len(suspect.alarms)
    answers = text.partition('class="answers"')[2].partition("</table>")[0]
    titles = re.findall(r'<th scope="row">([^<]+)<', answers)
    members = [one["name"] for one in pipeline().pack.manifest["members"]]
    assert titles[:2] == ["Your classifier", "Robust ensemble"]
    assert len(titles) == 2 + len(members)


def test_each_view_of_a_picture_is_recorded(tmp_path: Path) -> None:
    """The page is one view, the picture alone another; a list is none."""
    audit = Remembered()
    with stocked(tmp_path, count=3, audit=audit) as stock:
        ada = Browser(stock.port.url).log_in()
        assert not [one for one in audit.records if one["event"] == "suspect.view"]
        ada.get(f"/suspects/{stock.ids[0]}")
        ada.get(f"/suspects/{stock.ids[1]}/image.png")
        seen = [one for one in audit.records if one["event"] == "suspect.view"]
        assert [one["suspects"] for one in seen] == [[stock.ids[0]], [stock.ids[1]]]
        assert {one["actor"] for one in seen} == {"user:ada"}
        assert {one["via"] for one in seen} == {"console"}


def test_what_is_gone_is_gone(fresh: Stock) -> None:
    """An erased suspect is a 404 that says so, by page and by picture."""
    ada = Browser(fresh.port.url).log_in()
    gone = fresh.ids[0]
    assert ada.get(f"/suspects/{gone}").status == 200
    fresh.store.erase(Filter(ids=[gone]))
    for path in (f"/suspects/{gone}", f"/suspects/{gone}/image.png", "/suspects/" + "a" * 26):
        answer = ada.get(path)
        assert answer.status == 404
        assert "No such suspect" in answer.text


@pytest.mark.parametrize("odd", ["..%2f..%2fetc", "A" * 26, "a" * 5000, "%00", "x'--"])
def test_an_id_that_is_none_is_refused(ada: Browser, odd: str) -> None:
    """Nothing but an id reaches the store."""
    assert ada.get(f"/suspects/{odd}").status in (400, 404)


def test_another_pack_shows_the_rest(tmp_path: Path) -> None:
    """Where the pack was changed since, the page says so, and keeps scores and answers."""
    with stocked(tmp_path, count=1) as stock:
        (old,) = judged(stock.store, disturbed(1, seed=3))
        old = replace(old, id="a" * 26, pack="sha256:" + "0" * 64)
        (strange,) = judged(stock.store, disturbed(1, seed=4), model="other")
        marks = {"client": old.client, "tenant": "", "model": "signs", "pack": old.pack}
        old = replace(old, id=stock.store.suspect_id(old.image, **marks))
        stock.store.put([old, strange])
        ada = Browser(stock.port.url).log_in()
        text = ada.get(f"/suspects/{old.id}").text
        assert "The pack was changed since" in text
        assert len(pictures(text)) == 2
        assert "Robust ensemble" in text
        assert "is not served here" in ada.get(f"/suspects/{strange.id}").text


def test_a_store_that_is_away_is_said_to_be(
    stock: Stock, ada: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One plain page, HTTP 503; the next request may succeed."""

    def away(*_: object, **__: object) -> None:
        raise StoreError("the disk is gone")

    monkeypatch.setattr(type(stock.store), "row", away)
    answer = ada.get(f"/suspects/{stock.ids[0]}")
    assert answer.status == 503
    assert "The suspects cannot be reached" in answer.text
    monkeypatch.undo()
    assert ada.get(f"/suspects/{stock.ids[0]}").status == 200


def test_a_bug_shows_no_traceback(
    stock: Stock, ada: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id that finds it in the log, and nothing else."""
    monkeypatch.setattr("guard.console.panels.defenses", lambda _: 1 / 0)
    answer = ada.get(f"/suspects/{stock.ids[0]}")
    assert answer.status == 500
    assert re.search(r"internal error [0-9a-f]{16}", answer.text)
    assert "ZeroDivision" not in answer.text
