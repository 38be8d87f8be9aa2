"""The HTTP port: what it serves, and what it does not let happen."""

import asyncio
import http.client
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from guard.gateway import pages, permissions
from guard.gateway.pages import Pages
from guard.gateway.tls import watched_certificates
from tests.gateway.credentials import make_world
from tests.gateway.setting import counted
from tests.gateway.test_identity_matrix import page


def read(url: str) -> bytes:
    """What a GET gives."""
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 (our own address)
        return bytes(answer.read())


def test_the_metrics_page_and_no_other() -> None:
    """`/metrics` as before, with a query too; anything else is not there."""
    served = Pages("127.0.0.1:0")
    try:
        at = f"http://127.0.0.1:{served.port}"
        for path in ("/metrics", "/metrics?name[]=guard_in_flight"):
            assert b"\nguard_in_flight " in read(at + path)
        for path in ("/", "/other", "/metrics/", "/metricsx"):
            with pytest.raises(urllib.error.HTTPError) as caught:
                read(at + path)
            assert caught.value.code == 404
            assert caught.value.read() == b""
    finally:
        served.close()


def test_every_page_there_is_has_a_permission() -> None:
    """A page without a row in the table would be closed to everybody."""
    assert set(pages.PAGES) <= set(permissions.TABLE)


def test_ipv6_and_a_name_are_addresses_too() -> None:
    """What split_address takes, the page port takes."""
    for address in ("[::1]:0", "localhost:0"):
        Pages(address).close()


def test_a_slow_handshake_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that say nothing wait in threads of their own, and not for ever."""
    monkeypatch.setattr(pages, "SECONDS", 0.5)
    world = make_world(tmp_path)
    certificates = watched_certificates(world.tls(clients=False))
    served = Pages("127.0.0.1:0", certificates=certificates)
    before = counted("guard_auth_failures_total", reason="handshake")
    silent = [socket.create_connection(("127.0.0.1", served.port), 10) for _ in range(5)]
    try:
        assert page(world, served.port, None, None) == 200
        assert [line.recv(1) for line in silent] == [b""] * 5
        patience = time.monotonic() + 10  # a line is closed a moment before it is counted
        while counted("guard_auth_failures_total", reason="handshake") < before + 5:
            assert time.monotonic() < patience
            time.sleep(0.01)
        assert counted("guard_auth_failures_total", reason="handshake") == before + 5
    finally:
        for line in silent:
            line.close()
        served.close()


def test_there_are_few_connections_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than allowed is closed, and the places come back."""
    monkeypatch.setattr(pages, "AT_ONCE", 2)
    served = Pages("127.0.0.1:0")
    try:
        idle = [socket.create_connection(("127.0.0.1", served.port), 10) for _ in range(2)]
        with socket.create_connection(("127.0.0.1", served.port), 10) as extra:
            assert extra.recv(1) == b""
        for line in idle:
            line.close()
        asyncio.run(_until_answered(served.port))
    finally:
        served.close()


async def _until_answered(port: int) -> None:
    async with asyncio.timeout(10):
        while await asyncio.to_thread(_status, port) != 200:
            await asyncio.sleep(0.02)


def _status(port: int) -> int:
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        line.request("GET", "/metrics")
        return line.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        line.close()
