"""The door's edges: bounds exactly where they are said to be, every complaint with its setting."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from guard.config.access import Grant, Identities, ServerTls, Tokens
from guard.errors import ConfigError
from guard.gateway import permissions, tls, tokens
from guard.gateway.access import Access, authorise
from guard.gateway.identity import ANONYMOUS, LONGEST_NAME, ROLES, Authenticator, Identity, matches
from guard.gateway.pages import Pages
from guard.gateway.status import ForbiddenError, UnauthenticatedError
from guard.gateway.tls import expired, read_certificates, server_credentials, watched_certificates
from guard.gateway.tokens import LONGEST, LONGEST_SUBJECT
from tests.gateway.credentials import AUDIENCE, ISSUER, Issuer, World, forged, jwks, make_world
from tests.gateway.setting import counted
from tests.gateway.test_identity_tokens import PEM, SPKI, cause, claims, reader


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Files that a test may change."""
    return make_world(tmp_path)


# ── tokens ───────────────────────────────────────────────────────────────────────────────────────


def test_a_token_and_a_subject_may_be_so_long(tmp_path: Path) -> None:
    """At the bound they are read, one letter more is refused."""
    issuer = Issuer()
    reading = reader(tmp_path, jwks(issuer))
    assert reading.read(issuer.token("a" * LONGEST_SUBJECT)).subject == "a" * LONGEST_SUBJECT
    assert cause(reading, issuer.token("a" * (LONGEST_SUBJECT + 1))) == "claims"
    assert (LONGEST_SUBJECT, LONGEST) == (256, 8192)
    token = issuer.token("alice")
    assert cause(reading, token + "." * (LONGEST - len(token))) == "malformed"
    assert cause(reading, token + "." * (LONGEST - len(token) + 1)) == "malformed"
    ends = int(claims()["exp"])  # a whole number: the length of the token depends on the pad alone
    pads = range(LONGEST * 3 // 4, 0, -1)  # base64 turns three letters into four
    padded = (issuer.token("alice", exp=ends, pad="x" * size) for size in pads)
    longest = next(one for one in padded if len(one) <= LONGEST)
    assert len(longest) > LONGEST - 4
    assert reading.read(longest).subject == "alice"


def test_nonsense_of_every_depth_is_malformed(tmp_path: Path) -> None:
    """A header so deep that its reader gives up is refused like any other."""
    reading = reader(tmp_path, jwks(Issuer()))
    deep = jwt.utils.base64url_encode(b"[" * 5000).decode()
    for token in (f"{deep}.e30.x", f"e30.{deep}.x", "", ".", "a.b", "\ud800.x.y"):
        assert cause(reading, token) == "malformed"


def test_headers_that_change_the_meaning_are_refused(tmp_path: Path) -> None:
    """`crit` and `b64` are not understood here, so a token that has one is not read on."""
    issuer = Issuer()
    reading = reader(tmp_path, jwks(issuer))
    for extra in ({"crit": ["exp"]}, {"crit": []}, {"b64": True}, {"b64": False}):
        head = {"alg": "ES256", "kid": issuer.kid, **extra}
        unsigned = forged(head, claims(), None).rstrip(".")
        signer = jwt.algorithms.ECAlgorithm(jwt.algorithms.ECAlgorithm.SHA256)
        signature = jwt.utils.base64url_encode(signer.sign(unsigned.encode(), issuer.key))
        assert cause(reading, f"{unsigned}.{signature.decode()}") == "malformed"


def test_every_claim_is_asked_for(tmp_path: Path) -> None:
    """Each of the four is needed; which one is missing makes no difference to the answer."""
    issuer = Issuer()
    reading = reader(tmp_path, jwks(issuer))
    for name in ("exp", "aud", "iss", "sub"):
        less = {key: value for key, value in claims().items() if key != name}
        token = jwt.encode(less, issuer.key, "ES256", headers={"kid": issuer.kid})
        assert cause(reading, token) == "claims", name


def test_the_oldest_token_is_the_one_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First in, first out; exactly as many are remembered as is said."""
    monkeypatch.setattr(tokens, "REMEMBERED", 2)
    issuer = Issuer()
    reading = reader(tmp_path, jwks(issuer))
    for name in ("one", "two", "three"):
        reading.read(issuer.token(name))
    kept = [one.subject for one in reading._keys.get().verified.values()]
    assert kept == ["two", "three"]


def test_a_claim_ends_when_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the second, the leeway added."""
    issuer = Issuer()
    reading = reader(tmp_path, jwks(issuer), leeway=10.0)
    ends = int(claims()["exp"])
    token = issuer.token("alice", exp=ends)
    assert reading.read(token).ends == ends + 10
    monkeypatch.setattr(tokens.time, "time", lambda: ends + 9.9)
    assert reading.read(token).subject == "alice"
    monkeypatch.setattr(tokens.time, "time", lambda: ends + 10.0)
    assert cause(reading, token) == "expired"


def key_of(public: Any, **more: Any) -> dict[str, Any]:
    """A public key as a JWKS has it."""
    return {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(public)), **more}


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ([], "holds no key that fits the algorithms allowed"),
        ([{"kid": "a", "alg": "RS512"}], "holds no key that fits the algorithms allowed"),
        ([{"use": "enc"}], "holds no key that fits the algorithms allowed"),
        ([{"kid": "a"}, {"kid": "a"}], "has keys without a `kid` of their own"),
        ([{"kid": "a"}, {}], "has keys without a `kid` of their own"),
        ([{"kid": 7}], "has a `kid` that is no text"),
        ([{"kid": "a", "n": "!"}], "holds a key that cannot be read"),
        ([{"kid": "a", "d": "AQAB"}], "holds a secret key: public keys only"),
        ([{"kty": "oct", "k": "AQAB"}], "holds a secret key: public keys only"),
    ],
)
def test_key_files_are_refused_in_words(
    tmp_path: Path, entries: list[dict[str, Any]], complaint: str
) -> None:
    """Setting, file and what is wrong with it."""
    public = rsa.generate_private_key(65537, 2048).public_key()
    text = json.dumps({"keys": [key_of(public, **one) for one in entries]})
    with pytest.raises(ConfigError) as caught:
        reader(tmp_path, text)
    assert str(caught.value) == f"gateway.identity.tokens.keys: {tmp_path / 'keys'} {complaint}"
    assert caught.value.key == "gateway.identity.tokens.keys"


def test_weak_and_strange_keys_are_refused(tmp_path: Path) -> None:
    """RSA below 2048 bits, a curve that is not allowed, no key at all."""
    weak = rsa.generate_private_key(65537, 1024).public_key()  # noqa: S505
    with pytest.raises(ConfigError, match="has an RSA key below 2048 bits"):
        reader(tmp_path, json.dumps({"keys": [key_of(weak, kid="a")]}))
    curve = ec.generate_private_key(ec.SECP256K1()).public_key()
    with pytest.raises(ConfigError, match="holds no key that fits the algorithms allowed"):
        reader(tmp_path, curve.public_bytes(PEM, SPKI))
    for text, complaint in (("{}", "is no JWKS"), ("7", "is neither JWKS nor a public key in PEM"),
                            ('{"keys":[1]}', "is no JWKS")):  # fmt: skip
        with pytest.raises(ConfigError, match=complaint):
            reader(tmp_path, text)


# ── who somebody is ──────────────────────────────────────────────────────────────────────────────


def certified(**grants: list[str]) -> Authenticator:
    """Knows certificates only."""
    rows = [Grant(match=match, roles=roles) for match, roles in grants.items()]  # type: ignore[arg-type]
    return Authenticator(ServerTls(client_ca="ca"), Identities(grants=rows))


def test_a_spiffe_id_may_be_so_long() -> None:
    """2048 letters by its standard; a domain of 255."""
    who, start = certified(), "spiffe://domain/"
    longest = start + "a" * (LONGEST_NAME - len(start))
    assert who.by_certificate([longest], []).name == longest
    assert who.by_certificate([f"spiffe://{'d' * 255}/a"], []).kind == "certificate"
    for bad in (longest + "a", f"spiffe://{'d' * 256}/a", "spiffe://domain", "spiffe://domain/",
                "spiffe://domain/a//b", "spiffe://domain/../a", "SPIFFE://domain/a",
                "spiffe://Domain/a", "spiffe://domain/a\n"):  # fmt: skip
        with pytest.raises(UnauthenticatedError) as caught:
            who.by_certificate([bad], ["name"])
        assert caught.value.cause == "certificate"


def test_common_names_count_where_there_is_no_id() -> None:
    """Exactly one, printable and not blank; other URIs do not matter."""
    who = certified()
    assert who.by_certificate(["https://a"], ["x y"]).name == "cn:x y"
    for names in ([], ["a", "b"], [" "], [""], ["a\nb"]):
        with pytest.raises(UnauthenticatedError):
            who.by_certificate([], names)
    for uris in (["spiffe://d/a", "spiffe://d/b"], ["spiffe://d/a", "https://a"]):
        with pytest.raises(UnauthenticatedError):
            who.by_certificate(uris, ["a"])


def test_grants_match_whole_names_or_beginnings() -> None:
    """A star stands for any rest, nothing else for anything."""
    for match, name, fits in (
        ("cn:a", "cn:a", True), ("cn:a", "cn:ab", False), ("cn:*", "cn:ab", True),
        ("spiffe://d/a/*", "spiffe://d/a/b", True), ("spiffe://d/a/*", "spiffe://d/ab", False),
    ):  # fmt: skip
        assert matches(Grant(match=match, roles=["client"]), name) is fits
    who = Authenticator(
        ServerTls(client_ca="ca"),
        Identities(grants=[
            Grant(match="cn:*", roles=["client"]),
            Grant(match="cn:a", roles=["auditor"], tenant="t1"),
            Grant(match="cn:a", roles=["client"], tenant="t2"),
        ]),
    )  # fmt: skip
    assert who.by_certificate([], ["a"]) == Identity(
        "cn:a", frozenset({"client", "auditor"}), "t1", "certificate", scope="t1"
    )
    assert who.by_certificate([], ["b"]).tenant == "cn:b"


def test_an_identity_cannot_be_changed() -> None:
    """Whoever handles a call cannot make its caller another, by mistake or otherwise."""
    with pytest.raises(AttributeError):
        ANONYMOUS.name = "somebody"  # type: ignore[misc]
    assert ANONYMOUS.name == "anonymous"


def test_without_certificates_a_token_is_missed(tmp_path: Path) -> None:
    """No header is "missing"; with certificates it is for the certificate to tell."""
    (tmp_path / "keys").write_text(jwks(Issuer()))
    given = Identities(tokens=Tokens(keys=str(tmp_path / "keys"), issuer=ISSUER, audience=AUDIENCE))
    with pytest.raises(UnauthenticatedError) as caught:
        Authenticator(ServerTls(), given).by_token([])
    assert caught.value.cause == "missing"
    assert Authenticator(ServerTls(client_ca="ca"), given).by_token([]) is None
    assert certified().by_token(["Bearer x"]) is None


# ── what they may do ─────────────────────────────────────────────────────────────────────────────


def test_refusals_are_counted_by_kind() -> None:
    """A call of the table that the role may not make; a call that is in no table."""
    nobody = Identity("cn:a", frozenset(), "cn:a", "certificate")
    for path, reason in (("/metrics", "role"), ("/nothing", "unknown_call")):
        before = counted("guard_auth_failures_total", reason=reason)
        with pytest.raises(ForbiddenError, match="not permitted to this caller"):
            authorise(nobody, path)
        assert counted("guard_auth_failures_total", reason=reason) == before + 1
    authorise(ANONYMOUS, "/metrics")


def test_names_of_calls_are_told_in_the_tables_order() -> None:
    """By their short names, without repetition of what no role of these may do."""
    assert permissions.calls_of(["auditor"])[-1] == "metrics"
    assert "ModelInfer" not in permissions.calls_of(["auditor"])
    assert permissions.calls_of([]) == []
    everything = [path.rpartition("/")[2] for path in permissions.TABLE]
    assert permissions.calls_of(ROLES) == everything


async def test_a_name_that_is_no_text_is_nobody() -> None:
    """A certificate's bytes that are not UTF-8 are refused, not an exception of another kind."""
    failed: list[Any] = []

    class Context:
        def auth_context(self) -> dict[str, list[bytes]]:
            return {"peer_uri": [b"\xff"]}

        def __getattr__(self, name: str) -> Any:
            return lambda *args: failed.append((name, args))

    async def behaviour(_request: Any, _context: Any) -> str:
        return "answered"

    handler = grpc.unary_unary_rpc_method_handler(behaviour)

    async def found(_details: Any) -> Any:
        return handler

    details = SimpleNamespace(method="/metrics", invocation_metadata=())
    behind = await Access(certified()).intercept_service(found, details)
    assert behind is not None
    before = counted("guard_auth_failures_total", reason="certificate")
    assert await behind.unary_unary(b"", Context()) is None
    assert ("set_code", (grpc.StatusCode.UNAUTHENTICATED,)) in failed
    assert counted("guard_auth_failures_total", reason="certificate") == before + 1


# ── files and ports ──────────────────────────────────────────────────────────────────────────────


def test_files_that_change_while_they_are_read_are_read_again_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of one pair and half of the next is neither."""
    settings = world.tls(clients=True)
    real, asked = tls.read, []

    def changing(path: str, key: str) -> bytes:
        asked.append(key)
        return real(path, key) + (b"\n" if len(asked) > 3 else b"")

    monkeypatch.setattr(tls, "read", changing)
    with pytest.raises(ConfigError, match="the files changed while they were read") as caught:
        read_certificates(settings)
    assert caught.value.key == "gateway.tls"
    assert asked[:3] == ["gateway.tls.cert", "gateway.tls.key", "gateway.tls.client_ca"]


def test_a_certificate_that_only_openssl_reads_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its end cannot be told it is not used."""

    def unreadable(_data: bytes) -> Any:
        raise ValueError("no")

    monkeypatch.setattr(tls.x509, "load_pem_x509_certificates", unreadable)
    with pytest.raises(ConfigError, match=r"^gateway\.tls\.cert: .* is no valid certificate"):
        read_certificates(world.tls(clients=False))


def test_a_handshake_gets_the_newest_pair_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC is told of a change, not of the same again; clients are asked for theirs or not."""
    given: dict[str, Any] = {}

    def taken(first: Any, fetch: Any, required: bool) -> str:
        given.update(first=first, fetch=fetch, required=required)
        return "credentials"

    monkeypatch.setattr(tls.grpc, "dynamic_ssl_server_credentials", taken)
    for clients in (True, False):
        watched = watched_certificates(world.tls(clients=clients))
        assert watched is not None
        assert server_credentials(watched) == "credentials"
        assert given["required"] is clients
        assert given["fetch"]() is None
        world.write(world.authority.issue("gateway"), world.authority.cert)
        assert isinstance(given["fetch"](), grpc.ServerCertificateConfiguration)
        assert given["fetch"]() is None


def test_a_certificate_ends_when_it_says() -> None:
    """Before its end it is good, after it is not."""
    for hours, over in ((1, False), (-1, True)):
        ends = datetime.now(UTC) + timedelta(hours=hours)
        certificates = tls.Certificates(b"", b"", None, ends, None)  # type: ignore[arg-type]
        assert expired(certificates) is over


@pytest.mark.parametrize("address", ["nonsense", "host:", ":80", "256.256.256.256:80"])
def test_an_address_that_cannot_be_is_named_with_its_setting(address: str) -> None:
    """The page port's complaints begin with `gateway.metrics`."""
    with pytest.raises(ConfigError, match=r"^gateway\.metrics: ") as caught:
        Pages(address)
    assert caught.value.key == "gateway.metrics"
