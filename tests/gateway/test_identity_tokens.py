"""Tokens by themselves: kinds of keys, key files that are refused, keys that change."""

import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from guard.config.access import Algorithm, Identities, ServerTls, Tokens
from guard.errors import ConfigError
from guard.gateway.identity import Authenticator
from guard.gateway.status import UnauthenticatedError
from guard.gateway.tokens import KEY, TokenReader
from tests.gateway.credentials import AUDIENCE, ISSUER, Issuer, forged, jwks
from tests.gateway.setting import counted

SPKI = serialization.PublicFormat.SubjectPublicKeyInfo
PEM = serialization.Encoding.PEM


def reader(folder: Path, keys: str | bytes, **settings: Any) -> TokenReader:
    """Reads tokens that these keys sign."""
    path = folder / "keys"
    path.write_bytes(keys if isinstance(keys, bytes) else keys.encode())
    return TokenReader(Tokens(keys=str(path), issuer=ISSUER, audience=AUDIENCE, **settings))


def cause(reading: TokenReader, token: str) -> str:
    """Why a token is not believed."""
    with pytest.raises(UnauthenticatedError) as caught:
        reading.read(token)
    return caught.value.cause


def claims() -> dict[str, Any]:
    """Good ones."""
    return {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": time.time() + 60}


def private_key(algorithm: str) -> Any:
    """A key for an algorithm."""
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm.startswith("ES"):
        curves = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
        return ec.generate_private_key(curves[algorithm])
    return rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256", "ES384", "ES512", "RS256", "PS256"])
def test_every_algorithm_works_when_listed_and_not_otherwise(
    tmp_path: Path, algorithm: Algorithm
) -> None:
    """A PEM file holds one key, which a token need not name."""
    key = private_key(algorithm)
    token = jwt.encode(claims(), key, algorithm)
    pem = key.public_key().public_bytes(PEM, SPKI)
    assert reader(tmp_path, pem, algorithms=[algorithm]).read(token).subject == "alice"
    other: Algorithm = "RS512" if algorithm[1] == "S" and algorithm[0] in "RP" else "RS256"
    if other == "RS512":
        assert cause(reader(tmp_path, pem, algorithms=[other]), token) == "algorithm"
    else:
        with pytest.raises(ConfigError, match="fits the algorithms"):
            reader(tmp_path, pem, algorithms=[other])


def test_a_key_serves_only_its_own_algorithm(tmp_path: Path) -> None:
    """The JWK's `alg` binds, and a key's kind binds: no token chooses how it is checked."""
    key = private_key("RS256")
    entry = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
    bound = reader(
        tmp_path,
        json.dumps({"keys": [{**entry, "kid": "a", "alg": "RS256"}]}),
        algorithms=["RS256", "PS256", "ES256"],
    )
    assert bound.read(jwt.encode(claims(), key, "RS256", {"kid": "a"})).subject == "alice"
    assert cause(bound, jwt.encode(claims(), key, "PS256", {"kid": "a"})) == "algorithm"
    assert cause(bound, Issuer("a").token("alice")) == "algorithm"


def test_of_several_keys_the_token_names_one(tmp_path: Path) -> None:
    """By `kid`; a token without one is not tried on all of them. Encryption keys are skipped."""
    first, second = Issuer("first"), Issuer("second")
    sealing = {**Issuer("sealing").jwk, "use": "enc"}
    reading = reader(tmp_path, json.dumps({"keys": [first.jwk, second.jwk, sealing]}))
    assert reading.read(first.token("alice")).subject == "alice"
    assert reading.read(second.token("bob")).subject == "bob"
    assert cause(reading, jwt.encode(claims(), first.key, "ES256")) == "unknown_key"
    assert cause(reading, first.token("x", headers={"kid": "second"})) == "signature"
    assert cause(reading, first.token("x", headers={"kid": "sealing"})) == "unknown_key"


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ("", "neither JWKS nor"),
        ("{", "no JWKS"),
        ("{}", "no JWKS"),
        ('{"keys": []}', "no key"),
        ('{"keys": 3}', "no JWKS"),
        ('{"keys": ["x"]}', "no JWKS"),
        ('{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "a"}]}', "secret key"),
        ('{"keys": [{"kty": "EC", "crv": "P-256", "kid": "a"}]}', "cannot be read"),
        ('{"keys": [{"kty": "XX", "kid": "a"}]}', "cannot be read"),
    ],
)
def test_a_key_file_that_cannot_serve_is_refused(tmp_path: Path, keys: str, complaint: str) -> None:
    """In one line that names the setting."""
    with pytest.raises(ConfigError, match=complaint) as caught:
        reader(tmp_path, keys)
    assert caught.value.key == KEY


def test_private_weak_and_nameless_keys_are_refused(tmp_path: Path) -> None:
    """What checks tokens must not be able to make them, nor be easy to guess or ambiguous."""
    key = private_key("ES256")
    private = key.private_bytes(
        PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(ConfigError, match="secret key"):
        reader(tmp_path, private)
    inside = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key))
    with pytest.raises(ConfigError, match="secret key"):
        reader(tmp_path, json.dumps({"keys": [inside]}))
    small = rsa.generate_private_key(65537, 1024)  # noqa: S505 (that is the point)
    weak = small.public_key().public_bytes(PEM, SPKI)
    with pytest.raises(ConfigError, match="2048"):
        reader(tmp_path, weak)
    nameless = {key: value for key, value in Issuer().jwk.items() if key != "kid"}
    with pytest.raises(ConfigError, match="kid"):
        reader(tmp_path, json.dumps({"keys": [nameless, Issuer().jwk]}))
    with pytest.raises(ConfigError, match="kid"):
        reader(tmp_path, jwks(Issuer("same"), Issuer("same")))


def test_clocks_may_differ_a_little(tmp_path: Path) -> None:
    """Within the leeway `exp` and `nbf` are forgiven, beyond it they are not."""
    issuer, now = Issuer(), time.time()
    reading = reader(tmp_path, jwks(issuer), leeway=30.0)
    assert reading.read(issuer.token("a", exp=now - 20)).subject == "a"
    assert reading.read(issuer.token("b", nbf=now + 20)).subject == "b"
    assert cause(reading, issuer.token("c", exp=now - 40)) == "expired"
    assert cause(reading, issuer.token("d", nbf=now + 40)) == "not_yet_valid"


def test_a_token_seen_before_still_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verified tokens are remembered, for no longer than they say themselves."""
    issuer, now = Issuer(), time.time()
    reading = reader(tmp_path, jwks(issuer), leeway=0.0)
    token = issuer.token("alice", exp=now + 100)
    assert reading.read(token) is reading.read(token)
    monkeypatch.setattr("guard.gateway.tokens.time.time", lambda: now + 101)
    assert cause(reading, token) == "expired"


def test_remembered_tokens_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten, not the memory filled."""
    monkeypatch.setattr("guard.gateway.tokens.REMEMBERED", 3)
    issuer = Issuer()
    reading = reader(tmp_path, jwks(issuer))
    for index in range(9):
        reading.read(issuer.token(f"user-{index}"))
    assert len(reading._keys.get().verified) == 3


def test_new_keys_count_without_a_restart(tmp_path: Path) -> None:
    """Also for tokens that were good before; a broken file leaves the last keys in force."""
    old, new = Issuer("old"), Issuer("new")
    reading = reader(tmp_path, jwks(old))
    yesterday, today = old.token("alice"), new.token("alice")
    assert reading.read(yesterday).subject == "alice"
    assert cause(reading, today) == "unknown_key"
    (tmp_path / "keys").write_text(jwks(old, new))
    assert reading.read(today).subject == reading.read(yesterday).subject == "alice"
    (tmp_path / "keys").write_text(jwks(new))
    assert cause(reading, yesterday) == "unknown_key"
    before = counted("guard_reload_failures_total", what="token_keys")
    (tmp_path / "keys").write_text("{broken")
    assert reading.read(today).subject == "alice"
    assert reading.read(today).subject == "alice"
    assert counted("guard_reload_failures_total", what="token_keys") == before + 1
    (tmp_path / "keys").unlink()
    assert reading.read(today).subject == "alice"


@pytest.mark.parametrize(
    ("subject", "others"),
    [
        ("", {}), ("a\nb", {}), ("a" * 300, {}), ("a", {"exp": "soon"}), ("a", {"exp": 1e400}),
        ("a", {"exp": []}), ("a", {"nbf": "x"}), ("a", {"aud": {"x": 1}}), ("a", {"aud": []}),
        ("a", {"sub": 7}), ("a", {"iss": ["https://issuer.test"]}), ("a", {"roles": "operator"}),
        ("a", {"roles": {"operator": True}}),
    ],
)  # fmt: skip
def test_strange_claims_are_no_claims(tmp_path: Path, subject: str, others: dict[str, Any]) -> None:
    """Signed nonsense is refused like any other, never an exception of another kind."""
    issuer = Issuer()
    reading = reader(tmp_path, jwks(issuer), roles_claim="roles")
    payload = {**claims(), "sub": subject, **others}
    head = {"alg": "ES256", "kid": issuer.kid, "typ": "JWT"}
    unsigned = forged(head, payload, None).rstrip(".").encode()
    signature = jwt.algorithms.ECAlgorithm(jwt.algorithms.ECAlgorithm.SHA256).sign(
        unsigned, issuer.key
    )
    token = f"{unsigned.decode()}.{jwt.utils.base64url_encode(signature).decode()}"
    assert cause(reading, token) in ("malformed", "claims", "audience", "issuer", "expired")


def test_a_claim_may_list_roles(tmp_path: Path) -> None:
    """Where the settings say which; names that are no roles give nothing."""
    issuer = Issuer()
    (tmp_path / "keys").write_text(jwks(issuer))
    token = issuer.token("alice", groups=["auditor", "root", 7, "operator "], roles=["privacy"])

    def roles(claim: str) -> set[str]:
        settings = Tokens(
            keys=str(tmp_path / "keys"), issuer=ISSUER, audience=AUDIENCE, roles_claim=claim
        )
        who = Authenticator(ServerTls(), Identities(tokens=settings)).by_token([f"bearer {token}"])
        assert who is not None
        return set(who.roles)

    assert roles("groups") == {"auditor"}
    assert roles("") == roles("nothing") == set()


@pytest.mark.parametrize("shown", [["Bearer a", "Bearer b"], ["Bearer"], ["bearer  "], ["x"], [""]])
def test_the_header_holds_one_bearer_token(tmp_path: Path, shown: list[str]) -> None:
    """Twice, or of another scheme, it is refused."""
    (tmp_path / "keys").write_text(jwks(Issuer()))
    settings = Tokens(keys=str(tmp_path / "keys"), issuer=ISSUER, audience=AUDIENCE)
    with pytest.raises(UnauthenticatedError) as caught:
        Authenticator(ServerTls(), Identities(tokens=settings)).by_token(shown)
    assert caught.value.cause == "malformed"
