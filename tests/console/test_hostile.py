"""Addresses, cookies and forms out of a generator."""

from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guard.console.filters import _FIELDS
from tests.console.browsing import Browser
from tests.console.stock import Stock

PLAIN = {200, 303, 400, 401, 403, 404}
PAGES = ("/suspects", "/suspects/", "/review", "/export.", "/static/", "/login", "/counts.json")
ODD = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=40)
NAMES = st.sampled_from((*_FIELDS, "order", "after", "view", "again"))
FEW = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@FEW
@given(st.sampled_from(PAGES), ODD, st.dictionaries(NAMES, ODD, max_size=4), ODD)
def test_no_address_is_an_internal_error(
    stock: Stock, ada: Browser, page: str, rest: str, query: dict[str, str], cookie: str
) -> None:
    """Whatever the address and the cookie say, the answer is a page or a plain refusal."""
    path = f"{page}{quote(rest, safe='/')}?{urlencode(query)}"
    assert ada.get(path).status in PLAIN, path
    stranger = Browser(stock.port.url)
    stranger.cookies = {"guard": cookie}
    assert stranger.get(path).status in PLAIN, path


@FEW
@given(
    st.sampled_from(("/label", "/undo")),
    st.dictionaries(st.sampled_from(("id", "label", "at", "stay")), ODD),
)
def test_no_form_is_an_internal_error(ada: Browser, page: str, fields: dict[str, str]) -> None:
    """Whatever a form says, nothing is labelled by chance and nothing breaks."""
    answer = ada.post(page, dict(fields))
    assert answer.status in PLAIN, fields
    assert answer.location.startswith("/") or not answer.location
    assert not answer.location.startswith("//")


@pytest.mark.parametrize(
    "data",
    [b"\x00" * 64, b"GET / HTTP/9.9\r\n\r\n", b"GET  HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00",
     b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000 + b"\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
    ids=["zeros", "version", "no path", "tls", "headers", "http2"],
)  # fmt: skip
def test_what_is_no_request_is_turned_away(stock: Stock, data: bytes) -> None:
    """What is hardly HTTP is refused or closed, and the next visitor is served."""
    broken = Browser(stock.port.url)
    broken._connection.connect()
    broken._connection.sock.settimeout(5)
    try:
        broken._connection.sock.sendall(data)
        answer = broken._connection.sock.recv(100)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    except ConnectionError:
        pass
    assert Browser(stock.port.url).get("/login").status == 200
