"""Logging in and out."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guard.console.users import read_users, write_users
from guard.gateway.audit.recorder import Audit
from guard.gateway.identity import Identity
from guard.gateway.status import UnauthenticatedError
from tests.console.browsing import Browser
from tests.console.stock import PASSWORD, Stock, stocked


class Tokens:
    """Stands for the gateway's authenticator: one token is good until it is not."""

    good = True

    def by_token(self, authorization: list[str]) -> Identity | None:
        """Who the header names."""
        if not self.good or authorization != ["Bearer sesame"]:
            raise UnauthenticatedError("signature")
        return Identity("jwt:cora", frozenset({"analyst"}), "jwt:cora", "token")


class Remembered(Audit):
    """An audit log in a list."""

    enabled = True

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def record(self, event: str, *, actor: str = "", outcome: str = "ok", **details: Any) -> None:
        """Keep it."""
        self.records.append({"event": event, "actor": actor, "outcome": outcome, **details})

    async def act(
        self, event: str, *, actor: str = "", outcome: str = "ok", **details: Any
    ) -> None:
        """Keep it."""
        self.record(event, actor=actor, outcome=outcome, **details)


@pytest.fixture
def tokens() -> Tokens:
    """A way to log in without a password."""
    return Tokens()


@pytest.fixture
def audit() -> Remembered:
    """What was recorded."""
    return Remembered()


@pytest.fixture
def here(tmp_path: Path, tokens: Tokens, audit: Remembered) -> Iterator[Stock]:
    """A console with both ways to log in, and its audit log."""
    with stocked(tmp_path, count=3, authenticator=tokens, audit=audit) as found:  # type: ignore[arg-type]
        yield found


def test_the_right_password_lets_in(here: Stock, audit: Remembered) -> None:
    """A cookie, a record, and the queue."""
    browser = Browser(here.port.url)
    answer = browser.post("/login", {"name": "ada", "password": PASSWORD})
    assert (answer.status, answer.location) == (303, "/suspects")
    assert browser.get("/suspects").status == 200
    assert browser.get("/login").location == "/suspects"
    assert audit.records[0] == {"event": "console.login", "actor": "user:ada", "outcome": "ok"}


@pytest.mark.parametrize(
    ("name", "password"),
    [("ada", "wrong"), ("ada", ""), ("nobody", PASSWORD), ("", ""), ("ADA", PASSWORD),
     ("ada", PASSWORD + "x" * 5000), ("ada\0", PASSWORD), ("<b>", "<b>")],
)  # fmt: skip
def test_anything_else_does_not(here: Stock, audit: Remembered, name: str, password: str) -> None:
    """No cookie, one text for all, a record without the name."""
    browser = Browser(here.port.url)
    answer = browser.post("/login", {"name": name, "password": password})
    assert answer.status == 401
    assert browser.cookies == {}
    assert "That name and password do not go together." in answer.text
    assert "<b>" not in answer.text.partition("<form")[2].replace("<b>guard</b>", "")
    wanted = {"event": "refused.identity", "actor": "", "outcome": "refused"}
    assert audit.records[-1] == {**wanted, "page": "console", "why": "password"}


def test_guessing_is_slowed_down(here: Stock) -> None:
    """After eight wrong passwords even the right one waits; another name from here does not."""
    browser = Browser(here.port.url)
    for _ in range(8):
        assert browser.post("/login", {"name": "ada", "password": "wrong"}).status == 401
    answer = browser.post("/login", {"name": "ada", "password": PASSWORD})
    assert answer.status == 429
    assert "Try again in 5 min" in answer.text
    assert browser.post("/login", {"name": "ben", "password": PASSWORD}).status == 303


def test_a_token_logs_in_while_it_is_good(here: Stock, tokens: Tokens) -> None:
    """The session of a token ends with the token."""
    browser = Browser(here.port.url)
    assert browser.post("/login", {"token": "guess"}).status == 401
    assert browser.post("/login", {"token": "sesame"}).status == 303
    assert "cora" in browser.get("/suspects").text
    tokens.good = False
    assert browser.get("/suspects").location == "/login"


def test_a_program_needs_no_session(here: Stock, tokens: Tokens) -> None:
    """A token in the header is enough, for forms too: no browser adds it by itself."""
    program = Browser(here.port.url)
    bearer = {"authorization": "Bearer sesame"}
    assert program.get("/suspects", **bearer).status == 200
    fields: dict[str, str | list[str]] = {"id": here.ids[0], "label": "benign"}
    assert program.post("/label", fields, origin="", **bearer).status == 303
    assert here.store.row(here.ids[0]).reviews[0].reviewer == "jwt:cora"
    assert program.cookies == {}
    assert program.get("/suspects", authorization="Bearer guess").location == "/login"


def test_logging_out_ends_the_session(here: Stock) -> None:
    """The cookie is dead, not only forgotten."""
    browser = Browser(here.port.url).log_in()
    kept = dict(browser.cookies)
    assert browser.post("/logout", {}).location == "/login"
    assert browser.cookies == {}
    browser.cookies = kept
    assert browser.get("/suspects").location == "/login"


def test_whoever_is_taken_out_is_logged_out(here: Stock) -> None:
    """A change of the file counts for sessions that are open, and a new password ends them."""
    path = Path(here.config.console.users_file)
    browser = Browser(here.port.url).log_in()
    known = read_users(path)
    del known["ada"]
    write_users(path, list(known.values()))
    assert browser.get("/suspects").location == "/login"


def test_a_wrong_name_takes_as_long_as_a_wrong_password(tmp_path: Path) -> None:
    """Names cannot be found out by the clock: both compute one hash of full strength."""
    with stocked(tmp_path, count=1) as found:
        path = Path(found.config.console.users_file)
        from guard.console.users import User, hashed

        write_users(path, [User("ada", ("analyst",), "", hashed(PASSWORD))])
        took: dict[str, list[float]] = {"ada": [], "eve": []}
        for _ in range(2):
            for name, spent in took.items():
                begun = time.process_time()
                Browser(found.port.url).post("/login", {"name": name, "password": "wrong"})
                spent.append(time.process_time() - begun)
        assert 0.4 < min(took["eve"]) / min(took["ada"]) < 2.5
