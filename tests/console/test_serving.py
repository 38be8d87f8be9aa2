"""The console on its port: in a gateway, over TLS, and what may not disturb whom."""

import asyncio
import http.client
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest
from msgspec import structs

from guard.client import Client
from guard.config import Config
from guard.config.access import ServerTls
from guard.config.suspects import Suspects
from guard.console.serving import Place, beside, opened
from guard.errors import ConfigError
from guard.gateway.audit.recorder import OFF
from guard.gateway.server import running
from guard.testing import gateway_config, make_pack, suspicious_images
from tests.console.browsing import Browser
from tests.console.stock import Stock, pipeline, settings, stocked
from tests.gateway.credentials import Authority


def watched(folder: Path) -> Config:
    """A gateway with the tiny pack that keeps suspects and serves the console."""
    console = settings(folder).console
    suspects = Suspects(folder=str(folder / "kept"), key_file=str(folder / "keys" / "k"))
    config = gateway_config(make_pack(folder / "tiny"))
    return structs.replace(config, suspects=suspects, console=console)


async def test_what_a_gateway_flags_is_reviewed_beside_it(tmp_path: Path) -> None:
    """A flagged picture arrives in the queue; a label given there is known to RPCs."""
    config = watched(tmp_path)
    async with running(config) as gateway, beside(gateway, config) as port:

        def work() -> str:
            with Client(gateway.address) as client:
                client.infer("tiny", suspicious_images([1]))
                browser = Browser(port.url).log_in()
                for _ in range(100):
                    (row, *_), _ = _rows(client)
                    if row:
                        break
                    time.sleep(0.05)
                text = browser.get(f"/suspects/{row}").text
                assert "This pack does not show its views." in text
                browser.post("/label", {"id": row, "label": "adversarial"})
                return str(_rows(client)[1][0])

        assert await asyncio.to_thread(work) == "adversarial"


def _rows(client: Client) -> tuple[list[str], list[str]]:
    """Ids and labels of all suspects, by RPC."""
    found = client.suspects.rows().rows
    return [one.id for one in found] or [""], [one.label or "" for one in found]


async def test_a_stuck_console_holds_up_no_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While every one of its threads hangs, inference goes on as before."""
    config, free = watched(tmp_path), threading.Event()
    async with running(config) as gateway, beside(gateway, config) as port:

        def work() -> float:
            browser = Browser(port.url).log_in()
            store = type(gateway.kept.store)  # type: ignore[union-attr]
            monkeypatch.setattr(store, "counts", lambda *_: free.wait(20))
            hanging = [
                threading.Thread(target=_ask, args=(port.url, browser.cookies)) for _ in "12345678"
            ]
            for one in hanging:
                one.start()
            with Client(gateway.address) as client:
                slowest = 0.0
                for _ in range(20):
                    begun = time.perf_counter()
                    client.infer("tiny", suspicious_images([1]))
                    slowest = max(slowest, time.perf_counter() - begun)
            free.set()
            for one in hanging:
                one.join()
            return slowest

        assert await asyncio.to_thread(work) < 2


def _ask(url: str, cookies: dict[str, str]) -> None:
    browser = Browser(url)
    browser.cookies = cookies
    browser.get("/counts.json")


def test_over_tls_the_cookie_is_for_this_host_alone(tmp_path: Path) -> None:
    """`__Host-`, Secure, HSTS; a browser shows no certificate even where gRPC clients must."""
    authority = Authority()
    pair = authority.issue("localhost", dns=["localhost"])
    for name, data in (("cert", pair.cert), ("key", pair.key), ("ca", authority.cert)):
        (tmp_path / name).write_bytes(data)
    tls = ServerTls(
        cert=str(tmp_path / "cert"), key=str(tmp_path / "key"), client_ca=str(tmp_path / "ca")
    )
    with stocked(tmp_path, count=1) as stock:
        gateway = structs.replace(stock.config.gateway, tls=tls)
        config = structs.replace(stock.config, gateway=gateway)
        context = ssl.create_default_context(cadata=authority.cert.decode())
        with opened(config, Place(stock.store, OFF, None, {})) as port:
            browser = Browser(f"https://localhost:{port.port}", context=context)
            answer = browser.post("/login", {"name": "ada", "password": "correct horse battery"})
            cookie = answer.headers["set-cookie"]
            assert cookie.startswith("__Host-guard=")
            assert "Secure" in cookie
            assert "strict-transport-security" in answer.headers
            assert browser.get("/suspects").status == 200
            with pytest.raises((http.client.HTTPException, OSError)):
                Browser(f"http://localhost:{port.port}").get("/login")
            renewed = authority.issue("renewed", dns=["localhost"])
            (tmp_path / "key").write_bytes(renewed.key)
            (tmp_path / "cert").write_bytes(renewed.cert)
            with _connected("localhost", port.port, context) as fresh:
                shown = fresh.getpeercert()
            assert shown
            assert ("commonName", "renewed") in [pair for part in shown["subject"] for pair in part]


def _connected(host: str, port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    return context.wrap_socket(socket.create_connection((host, port), 10), server_hostname=host)


def test_behind_a_proxy_its_origin_counts(tmp_path: Path) -> None:
    """With console.origin forms come from there, and cookies are Secure."""
    with stocked(tmp_path, count=1, origin="https://review.example") as stock:
        browser = Browser(stock.port.url)
        fields: dict[str, str | list[str]] = {"name": "ada", "password": "correct horse battery"}
        assert browser.post("/login", fields).status == 403
        answer = browser.post("/login", fields, origin="https://review.example")
        assert answer.status == 303
        assert "Secure" in answer.headers["set-cookie"]


def test_small_answers_leave_at_once(stock: Stock) -> None:
    """The socket is named as TCP: otherwise asyncio leaves Nagle on, 40 ms for each answer."""
    assert stock.port._socket.proto == socket.IPPROTO_TCP


def test_a_taken_port_is_named(stock: Stock) -> None:
    """Two consoles do not share one."""
    console = structs.replace(stock.config.console, listen=f"127.0.0.1:{stock.port.port}")
    config = structs.replace(stock.config, console=console)
    place = Place(stock.store, OFF, None, {"signs": pipeline()})
    with (
        pytest.raises(ConfigError, match=r"console.listen: cannot listen on"),
        opened(config, place),
    ):
        pass


def test_idle_strangers_hold_no_place(stock: Stock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a request, or none, is waited for a while only; then everybody has room again."""
    monkeypatch.setattr("guard.console.serving.HEAD_SECONDS", 0.4)
    strangers = [socket.create_connection(("127.0.0.1", stock.port.port), 5) for _ in range(100)]
    for one in strangers[::2]:
        one.send(b"GET /login HTTP/1.1\r\nHost: x\r\n")
    assert Browser(stock.port.url).get("/login").status == 503
    for one in strangers:
        assert one.recv(1) == b""
    assert Browser(stock.port.url).get("/login").status == 200


def test_a_form_that_never_ends_is_given_up(stock: Stock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body has its time, too; the place is free again."""
    monkeypatch.setattr("guard.console.shield.FORM_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", stock.port.port), 5) as slow:
        head = "POST /login HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\nContent-Length: 99\r\n\r\n"
        slow.send(head.encode())
        assert b" 503 " in slow.recv(4096).partition(b"\r\n")[0]
