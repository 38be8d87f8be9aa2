"""The client over TLS, known by a certificate or a token."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import click
import grpc
import pytest
from click.testing import CliRunner

from guard.cli.connection import connect, connecting
from guard.client import CallError, Client
from guard.errors import ConfigError
from guard.gateway.server import Running, running
from guard.testing import clean_images, gateway_config, make_pack
from tests.gateway.credentials import DOMAIN, World, make_world


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Certificates and keys; a client's pair lies beside them."""
    world = make_world(tmp_path)
    mine = world.authority.issue(uris=(f"{DOMAIN}/client",))
    (tmp_path / "my.key").write_bytes(mine.key)
    (tmp_path / "my.pem").write_bytes(mine.cert)
    return world


@pytest.fixture(params=[True, False], ids=["certificate", "token"])
async def gateway(request: Any, world: World) -> AsyncIterator[Running]:
    """One that wants certificates, one that wants tokens."""
    pack = make_pack(world.folder / "tiny")
    identity = world.identities(certificates=request.param)
    chosen = {"tls": world.tls(clients=request.param), "identity": identity}
    async with running(gateway_config(pack, gateway=chosen)) as here:
        yield here


async def test_a_client_is_known_by_its_certificate_or_token(
    gateway: Running, world: World
) -> None:
    """Files and a string are all a user has to give."""
    folder, target = world.folder, f"localhost:{gateway.port}"
    shown: dict[str, Any] = {"ca": folder / "ca.pem"}
    if gateway.servicer.gateway.tls.client_ca:
        shown |= {"cert": folder / "my.pem", "key": folder / "my.key"}
    else:
        shown |= {"token": world.issuer.token("client")}

    def ask() -> list[int]:
        with Client(target, **shown) as client:
            return list(client.infer("tiny", clean_images([2])).outputs["label"])

    assert await asyncio.to_thread(ask) == [2]


async def test_a_token_may_change_between_calls(gateway: Running, world: World) -> None:
    """A function is asked before each call; what is missing or old is said plainly."""
    if gateway.servicer.gateway.tls.client_ca:
        return
    tokens = [world.issuer.token("client", exp=1), world.issuer.token("client")]

    def ask() -> str:
        with Client(
            f"localhost:{gateway.port}", ca=world.folder / "ca.pem", token=lambda: tokens.pop(0)
        ) as client:
            with pytest.raises(CallError) as caught:
                client.ready()
            assert client.ready()
            with pytest.raises(CallError, match="PERMISSION_DENIED"):
                client.status()
            return caught.value.reason

    tokens.append(tokens[1])
    assert await asyncio.to_thread(ask) == "UNAUTHENTICATED"


async def test_the_options_of_commands_make_the_same_client(gateway: Running, world: World) -> None:
    """--ca, --cert, --key and --token-file, which is read before each call."""
    folder = world.folder
    (folder / "token").write_text(world.issuer.token("client") + "\n")
    arguments = ["--ca", str(folder / "ca.pem")]
    if gateway.servicer.gateway.tls.client_ca:
        arguments += ["--cert", str(folder / "my.pem"), "--key", str(folder / "my.key")]
    else:
        arguments += ["--token-file", str(folder / "token")]

    @click.command()
    @connecting
    def ask(**options: Any) -> None:
        with connect(f"localhost:{gateway.port}", options) as client:
            click.echo(client.ready())

    result = await asyncio.to_thread(CliRunner().invoke, ask, arguments)
    assert result.output == "True\n"


@pytest.mark.parametrize(
    ("target", "options", "key"),
    [
        ("gateway.test:1", {"token": "x"}, "token"),
        ("127.0.0.1.test:1", {"token": "x"}, "token"),
        ("localhost:1", {"ca": "nowhere.pem"}, "ca"),
        ("localhost:1", {"cert": "my.pem"}, "cert"),
    ],
)
def test_what_would_give_secrets_away_is_refused(
    target: str, options: dict[str, Any], key: str
) -> None:
    """A token never crosses a network in plain text; files that are missing are named."""
    with pytest.raises(ConfigError) as caught:
        Client(target, **options)
    assert caught.value.key == key


def test_a_token_in_plain_text_stays_on_this_machine() -> None:
    """On loopback it may travel as it is, and over TLS anywhere."""
    make: list[Callable[[], Client]] = [
        lambda: Client("127.0.0.1:1", token="x"),  # noqa: S106 (no password)
        lambda: Client("gateway.test:1", token="x", tls=True),  # noqa: S106
        lambda: Client("gateway.test:1", credentials=grpc.ssl_channel_credentials(), token="x"),  # noqa: S106
    ]
    for one in make:
        one().close()


def test_an_unreadable_token_file_is_named(tmp_path: Path) -> None:
    """At the call that needs it."""
    options = {"tls": False, "ca": None, "cert": None, "key": None}
    with (
        connect("127.0.0.1:1", {**options, "token_file": tmp_path / "none"}) as client,
        pytest.raises(ConfigError, match="--token-file"),
    ):
        client.ready()
