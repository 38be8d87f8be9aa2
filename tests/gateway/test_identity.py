"""Who a caller is, what a grant covers, and where the handlers and the upstream see it."""

import asyncio
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from guard.config.access import Grant, Identities, ServerTls
from guard.errors import ConfigError
from guard.gateway.identity import ANONYMOUS, ROLES, Authenticator, current, matches
from guard.gateway.server import authenticator_of, running
from guard.gateway.servicer import InferenceServicer
from guard.gateway.status import UnauthenticatedError
from guard.testing import FakeUpstream, gateway_config
from tests.gateway import credentials
from tests.gateway.credentials import World, make_world
from tests.gateway.test_identity_matrix import body, channel
from tests.gateway.wire import failure_of

INFER = "/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Certificates and keys."""
    return make_world(tmp_path_factory.mktemp("world"))


def certified(*grants: Grant) -> Authenticator:
    """Tells callers apart by certificate, with these grants."""
    return Authenticator(ServerTls(client_ca="ca.pem"), Identities(grants=list(grants)))


def test_without_identities_everybody_is_anonymous_and_may_do_everything() -> None:
    """The default on loopback: as if nothing of this existed."""
    assert current() is ANONYMOUS
    assert set(ANONYMOUS.roles) == set(ROLES)
    assert authenticator_of(gateway_config(Path("x")).gateway) is None


@pytest.mark.parametrize(
    ("match", "name", "covered"),
    [
        ("spiffe://prod/a", "spiffe://prod/a", True),
        ("spiffe://prod/a", "spiffe://prod/ab", False),
        ("spiffe://prod/a", "spiffe://prod/a/b", False),
        ("spiffe://prod/a/*", "spiffe://prod/a/b", True),
        ("spiffe://prod/a/*", "spiffe://prod/ab", False),
        ("spiffe://prod/a/*", "spiffe://prod.evil/a/b", False),
        ("jwt:*", "jwt:alice", True),
        ("jwt:*", "cn:jwt:alice", False),
        ("cn:a", "jwt:a", False),
    ],
)
def test_a_grant_covers_what_it_names(match: str, name: str, covered: bool) -> None:
    """Exactly one name, or everything below a folder; kinds of names never mix."""
    assert matches(Grant(match=match, roles=["client"]), name) is covered


def test_roles_of_all_grants_add_up_and_the_tenant_is_shared() -> None:
    """Somebody may match several grants; without a tenant they are their own."""
    who = certified(
        Grant(match="spiffe://prod/*", roles=["client"], tenant="prod"),
        Grant(match="spiffe://prod/ops", roles=["operator", "auditor"]),
    )
    ops = who.by_certificate(["spiffe://prod/ops"], [])
    assert (ops.name, ops.tenant, ops.kind) == ("spiffe://prod/ops", "prod", "certificate")
    assert ops.roles == {"client", "operator", "auditor"}
    stranger = who.by_certificate(["spiffe://other/x"], [])
    assert (stranger.roles, stranger.tenant) == (frozenset(), "spiffe://other/x")


@pytest.mark.parametrize(
    ("uris", "names", "identity"),
    [
        (["spiffe://prod/a"], ["someone"], "spiffe://prod/a"),
        (["https://example.test/"], ["someone"], "cn:someone"),
        ([], ["someone"], "cn:someone"),
        ([], ["spiffe://prod/a"], "cn:spiffe://prod/a"),
        ([], [], None),
        ([], [""], None),
        ([], [" "], None),
        ([], ["a\0b"], None),
        ([], ["a\nb"], None),
        ([], ["a", "b"], None),
        (["spiffe://prod/a", "spiffe://prod/b"], ["x"], None),
        (["spiffe://prod/a", "https://example.test/"], ["x"], None),
        (["SPIFFE://prod/a"], ["x"], None),
        (["spiffe://PROD/a"], ["x"], None),
        (["spiffe://prod"], ["x"], None),
        (["spiffe://prod/"], ["x"], None),
        (["spiffe://prod/a/"], ["x"], None),
        (["spiffe://prod//a"], ["x"], None),
        (["spiffe://prod/."], ["x"], None),
        (["spiffe://prod/../a"], ["x"], None),
        (["spiffe://prod/a?b"], ["x"], None),
        (["spiffe://prod/a#b"], ["x"], None),
        (["spiffe://prod:1/a"], ["x"], None),
        (["spiffe://u@prod/a"], ["x"], None),
        (["spiffe://prod/a%2f"], ["x"], None),
        (["spiffe://prod/a\n"], ["x"], None),
        (["spiffe://prod/" + "a" * 2048], ["x"], None),
    ],
)
def test_a_certificate_names_one_identity_or_none(
    uris: list[str], names: list[str], identity: str | None
) -> None:
    """One well-formed SPIFFE id; else, without any, one printable common name; else nobody."""
    who = certified()
    if identity is not None:
        assert who.by_certificate(uris, names).name == identity
        return
    with pytest.raises(UnauthenticatedError) as caught:
        who.by_certificate(uris, names)
    assert caught.value.cause == "certificate"


@pytest.mark.parametrize("kind", ["certificate", "token"])
async def test_handlers_know_who_calls(
    tiny_pack: Path, world: World, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`current()` inside a handler is this call's caller, also when two call at once."""
    seen: dict[str, Any] = {}
    ready = InferenceServicer.server_ready

    async def noting(self: InferenceServicer, data: bytes, context: Any) -> Any:
        before = current()
        await asyncio.sleep(0.05)
        assert current() is before
        seen[before.name] = before
        return await ready(self, data, context)

    monkeypatch.setattr(InferenceServicer, "server_ready", noting)
    by_certificate = kind == "certificate"
    tls = world.tls(clients=by_certificate)
    alone = world.identities(tokens=not by_certificate, certificates=by_certificate)
    config = gateway_config(tiny_pack, gateway={"tls": tls, "identity": alone})
    async with running(config) as gateway:

        async def call(role: str) -> None:
            pair = credentials.certificates(world, role)["good"][0] if by_certificate else None
            shown = None if by_certificate else credentials.tokens(world, role)["good"][0]
            metadata = (("authorization", shown),) if shown else ()
            async with channel(world, gateway, pair) as line:
                path = "/inference.GRPCInferenceService/ServerReady"
                await line.unary_unary(path)(b"", metadata=metadata, timeout=10)

        await asyncio.gather(*(call(role) for role in ROLES))
    start = f"{credentials.DOMAIN}/" if by_certificate else "jwt:"
    assert {name: set(who.roles) for name, who in seen.items()} == {
        f"{start}{role}": {role} for role in ROLES
    }
    assert current() is ANONYMOUS


async def test_a_token_is_not_handed_to_the_upstream(tiny_pack: Path, world: World) -> None:
    """Who got it could use it here; other metadata still travel, also one that we did not ask."""
    async with FakeUpstream() as upstream:
        shown = str(credentials.tokens(world, "client")["good"][0])
        alone = world.identities(certificates=False)
        asked = {"tls": world.tls(clients=False), "identity": alone}
        for gateway_settings, kept in ((asked, False), ({}, True)):
            config = gateway_config(tiny_pack, upstream=upstream.address, gateway=gateway_settings)
            async with running(config) as gateway:
                if kept:
                    line = grpc.aio.insecure_channel(gateway.address)
                else:
                    line = channel(world, gateway, None)
                async with line:
                    metadata = (("authorization", shown), ("x-own", "1"))
                    await line.unary_unary(INFER)(body(INFER), metadata=metadata, timeout=10)
            assert upstream.metadata[-1]["x-own"] == "1"
            assert ("authorization" in upstream.metadata[-1]) is kept


async def test_refusals_tell_nothing_about_the_inside(tiny_pack: Path, world: World) -> None:
    """Code, a plain sentence, an ErrorInfo: no path, no name of a file, key or library, no id."""
    alone = world.identities(certificates=False)
    tls = world.tls(clients=False)
    texts = set()
    async with running(
        gateway_config(tiny_pack, gateway={"tls": tls, "identity": alone})
    ) as gateway, channel(world, gateway, None) as line:  # fmt: skip
        for shown, verdict in credentials.tokens(world, "operator").values():
            metadata = () if shown is None else (("authorization", shown),)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await line.unary_unary(INFER)(b"\xff", metadata=metadata, timeout=10)
            code, reason, text = failure_of(caught.value)
            wanted = "UNAUTHENTICATED" if verdict == "UNAUTHENTICATED" else "FORBIDDEN"
            assert (code, reason) == (verdict.replace("GOOD", "PERMISSION_DENIED"), wanted)
            texts.add(text)
            assert "pem" not in str(caught.value.trailing_metadata())
    assert texts == {
        "credentials are needed",
        "the credentials are not valid",
        "the credentials have expired",
        "not permitted to this caller",
    }


@pytest.mark.parametrize(
    ("kind", "key"),
    [("cert", "gateway.tls.cert"), ("key", "gateway.tls.key"), ("ca", "gateway.tls.client_ca")],
)
async def test_missing_files_are_named_before_anything_listens(
    tiny_pack: Path, tmp_path: Path, kind: str, key: str
) -> None:
    """One plain line with the setting, not a gateway that nobody can call."""
    world = make_world(tmp_path)
    (tmp_path / f"{kind}.pem").unlink()
    config = gateway_config(
        tiny_pack, gateway={"tls": world.tls(clients=True), "identity": world.identities()}
    )
    with pytest.raises(ConfigError) as caught:
        async with running(config):
            pass
    assert caught.value.key == key
