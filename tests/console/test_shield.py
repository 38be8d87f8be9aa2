"""What every request passes: who comes, from where, and what every answer carries."""

import pytest

from guard.console.shield import LARGEST_FORM
from tests.console.browsing import Browser
from tests.console.stock import Stock

PAGES = (
    "/", "/login", "/suspects", "/suspects/x", "/suspects/x/image.png", "/review", "/help",
    "/counts.json", "/export.csv", "/nothing/here", "/static/console.css", "/static/none",
)  # fmt: skip


def test_every_answer_is_sealed(stock: Stock, ada: Browser) -> None:
    """No framing, no foreign sources, no cache: on every page, known or not, found or not."""
    for browser in (ada, Browser(stock.port.url)):
        for path in PAGES:
            headers = browser.get(path).headers
            policy = headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert headers["x-frame-options"] == "DENY"
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "same-origin"
            if not path.startswith("/static/console"):
                assert headers["cache-control"] == "no-store", path


def test_pages_name_no_other_host(stock: Stock, ada: Browser) -> None:
    """No third-party assets, no inline script or style: the policy would refuse them."""
    pages = [ada.get(path).text for path in ("/suspects", f"/suspects/{stock.ids[0]}", "/help")]
    for text in (*pages, Browser(stock.port.url).get("/login").text):
        assert "http://" not in text.replace(stock.port.url, "")
        assert "https://" not in text
        assert " style=" not in text
        assert "<style" not in text
        assert " onclick=" not in text
        assert text.count("<script") == 1


@pytest.mark.parametrize("path", [one for one in PAGES if one not in ("/login",)][:9])
def test_nobody_sees_anything_without_logging_in(stock: Stock, path: str) -> None:
    """A browser is led to the form, a program told 401."""
    stranger = Browser(stock.port.url)
    answer = stranger.get(path)
    assert (answer.status, answer.location) == (303, "/login")
    assert stranger.send("GET", path).status == 401


FORGED = {
    "another origin": {"origin": "https://evil.example"},
    "no origin": {"origin": ""},
    "a null origin": {"origin": "null"},
    "the right name, another scheme": {"origin": "https://127.0.0.1"},
    "another site, says the browser": {"sec-fetch-site": "cross-site"},
}


@pytest.mark.parametrize("headers", FORGED.values(), ids=FORGED)
@pytest.mark.parametrize("path", ["/label", "/undo", "/logout", "/login"])
def test_a_form_from_elsewhere_changes_nothing(
    stock: Stock, ada: Browser, path: str, headers: dict[str, str]
) -> None:
    """Cross-site requests are refused, even with the cookie and the right secret."""
    fields: dict[str, str | list[str]] = {"id": stock.ids[0], "label": "benign"}
    assert ada.post(path, fields, **headers).status == 403
    assert stock.store.row(stock.ids[0]).reviews == ()
    assert ada.get("/suspects").status == 200


@pytest.mark.parametrize("csrf", ["", "x", "0" * 32, "é"])
def test_a_form_without_the_sessions_secret_changes_nothing(
    stock: Stock, ada: Browser, csrf: str
) -> None:
    """The right origin is not enough."""
    answer = ada.post("/label", {"id": stock.ids[0], "label": "benign", "csrf": csrf})
    assert answer.status == 403
    assert stock.store.row(stock.ids[0]).reviews == ()


def test_one_sessions_secret_is_not_anothers(stock: Stock, ada: Browser) -> None:
    """A secret out of one's own page does not serve for somebody else."""
    ben = Browser(stock.port.url).log_in("ben")
    assert ben.csrf != ada.csrf
    answer = ada.post("/label", {"id": stock.ids[0], "label": "benign", "csrf": ben.csrf})
    assert answer.status == 403


def test_large_and_strange_forms_are_refused(ada: Browser) -> None:
    """A form is small, of one kind, and read only so far."""
    assert ada.post("/label", {"id": "a" * LARGEST_FORM}).status == 400
    assert ada.post("/label", {"id": ["a"] * 2000}).status == 400
    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert ada.post("/label", {"id": "a"}, **kind).status == 400
    headers = {"origin": ada.origin, "content-type": "application/x-www-form-urlencoded"}
    assert ada.send("POST", "/label", b"\xff\xfe=1", headers).status == 400


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(ada: Browser, method: str) -> None:
    """Only GET, HEAD and POST mean anything here."""
    assert ada.send(method, "/suspects").status == 405


def test_a_page_that_is_only_posted_to_is_not_there_to_get(ada: Browser) -> None:
    """A link cannot label anything."""
    assert ada.get("/label").status in (404, 405)
    assert ada.get("/undo").status in (404, 405)


def test_the_cookie_is_out_of_reach(stock: Stock) -> None:
    """No script reads it, no other site sends it."""
    answer = Browser(stock.port.url).post("/login", {"name": "ada", "password": "wrong"})
    assert "set-cookie" not in answer.headers
    browser = Browser(stock.port.url)
    answer = browser.post("/login", {"name": "ada", "password": "correct horse battery"})
    cookie = answer.headers["set-cookie"].lower()
    assert cookie.startswith("guard=")
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "domain" not in cookie
