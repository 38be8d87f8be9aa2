"""TLS on both ports: versions, and certificates that change without a restart."""

import asyncio
import os
import socket
import ssl
from pathlib import Path

import grpc.aio
import pytest

from guard.config.access import ServerTls
from guard.errors import ConfigError
from guard.gateway.server import Running, running
from guard.gateway.tls import expired, read_certificates, watched_certificates
from guard.testing import gateway_config
from tests.gateway import credentials
from tests.gateway.credentials import DOMAIN, Authority, Pair, World, make_world
from tests.gateway.setting import counted
from tests.gateway.test_identity_matrix import channel, page

LIVE = "/inference.GRPCInferenceService/ServerLive"


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Files that a test may change."""
    return make_world(tmp_path)


def settings(world: World) -> dict[str, object]:
    """A gateway that wants client certificates, on both ports."""
    identity = world.identities(tokens=False)
    return {"metrics": "127.0.0.1:0", "tls": world.tls(clients=True), "identity": identity}


async def live(world: World, gateway: Running, pair: Pair, trust: Authority | None = None) -> str:
    """The status of a small call over a new connection."""
    seen = (
        World(world.folder, trust, world.stranger, world.issuer, world.impostor) if trust else world
    )
    async with channel(seen, gateway, pair) as line:
        try:
            await line.unary_unary(LIVE)(b"", timeout=10)
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        return "OK"


async def test_certificates_and_authorities_change_without_a_restart(
    tiny_pack: Path, world: World
) -> None:
    """New handshakes use the new files on both ports; a connection that is up stays up."""
    old, new = world.authority, Authority("new")
    mine = {who: who.issue(uris=(f"{DOMAIN}/auditor",)) for who in (old, new)}
    async with running(gateway_config(tiny_pack, gateway=settings(world))) as gateway:
        assert await live(world, gateway, mine[old]) == "OK"
        assert await live(world, gateway, mine[new], trust=new) == "UNAVAILABLE"
        async with channel(world, gateway, mine[old]) as line:
            await line.unary_unary(LIVE)(b"", timeout=10)
            world.write(new.issue("gateway", dns=("localhost",)), new.cert)
            assert await live(world, gateway, mine[new], trust=new) == "OK"
            assert await live(world, gateway, mine[old]) == "UNAVAILABLE"
            await line.unary_unary(LIVE)(b"", timeout=10)
        renewed = World(world.folder, new, world.stranger, world.issuer, world.impostor)
        ask = asyncio.to_thread(page, renewed, gateway.metrics_port, mine[new], None)
        assert await ask == 200
        ask = asyncio.to_thread(page, world, gateway.metrics_port, mine[old], None)
        assert await ask == 0


async def test_files_that_do_not_fit_are_not_used(tiny_pack: Path, world: World) -> None:
    """Half a rotation, garbage, a missing file: the last good pair serves, and it is counted."""
    mine = world.authority.issue(uris=(f"{DOMAIN}/auditor",))
    async with running(gateway_config(tiny_pack, gateway=settings(world))) as gateway:
        fresh = world.authority.issue("gateway", dns=("localhost",))
        for name, data in (
            ("cert.pem", fresh.cert),  # its key is not there yet
            ("key.pem", b"garbage"),
            ("cert.pem", b""),
            ("ca.pem", b"no certificate"),
        ):
            before = counted("guard_reload_failures_total", what="certificates")
            (world.folder / name).write_bytes(data)
            assert await live(world, gateway, mine) == "OK"
            assert counted("guard_reload_failures_total", what="certificates") == before + 1
        (world.folder / "key.pem").unlink()
        assert await live(world, gateway, mine) == "OK"
        world.write(fresh, world.authority.cert)
        assert await live(world, gateway, mine) == "OK"


@pytest.mark.parametrize(
    ("version", "spoken"),
    [
        (ssl.TLSVersion.TLSv1, False),
        (ssl.TLSVersion.TLSv1_1, False),
        (ssl.TLSVersion.TLSv1_2, True),
        (ssl.TLSVersion.TLSv1_3, True),
    ],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
async def test_tls_is_1_2_or_newer(
    tiny_pack: Path, world: World, version: ssl.TLSVersion, spoken: bool
) -> None:
    """Older versions get no handshake, on either port."""
    chosen = {"metrics": "127.0.0.1:0", "tls": world.tls(clients=False)}
    async with running(gateway_config(tiny_pack, gateway=chosen)) as gateway:
        for port in (gateway.port, gateway.metrics_port):
            assert await asyncio.to_thread(handshake, world, port, version) is spoken


def handshake(world: World, port: int, version: ssl.TLSVersion) -> bool:
    """Whether the port speaks this version."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    context.load_verify_locations(cadata=world.authority.cert.decode())
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="localhost") as line:
                return line.version() is not None
        except ssl.SSLError:
            return False


def test_the_certificates_end_is_a_metric(world: World) -> None:
    """An alert can fire before clients refuse the gateway; `guard check` says when it is late."""
    read_certificates(world.tls(clients=True))
    left = counted("guard_certificate_expiry_timestamp_seconds") - os.times().elapsed
    assert left > 0
    late = world.authority.issue("gateway", hours=(-2, -1))
    world.write(late, world.authority.cert)
    assert expired(read_certificates(world.tls(clients=True)))


def test_what_cannot_serve_is_said_at_once(world: World) -> None:
    """A key of another certificate, a locked key, no certificate: one line with the setting."""
    tls = world.tls(clients=True)
    good = {name: (world.folder / f"{name}.pem").read_bytes() for name in ("cert", "key", "ca")}
    for name, data, key in (
        ("key", world.stranger.issue("x").key, "gateway.tls"),
        ("key", LOCKED, "gateway.tls"),
        ("cert", b"", "gateway.tls"),
        ("ca", b"\xff\xfe", "gateway.tls.client_ca"),
        ("ca", b"", "gateway.tls.client_ca"),
    ):
        (world.folder / f"{name}.pem").write_bytes(data)
        with pytest.raises(ConfigError) as caught:
            read_certificates(tls)
        assert caught.value.key == key, name
        assert "\n" not in str(caught.value)
        (world.folder / f"{name}.pem").write_bytes(good[name])
    assert watched_certificates(ServerTls()) is None


LOCKED = credentials.locked_key()
