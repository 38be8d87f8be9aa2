"""Who calls: `authorization` headers, key files, and the names in certificates."""

import base64
import hashlib
import json
import random
import re
from collections.abc import Hashable
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from guard.config.access import Grant, Identities, ServerTls, Tokens
from guard.errors import ConfigError
from guard.gateway.identity import ROLES, Authenticator
from guard.gateway.status import UnauthenticatedError
from guard.gateway.tokens import read_keys
from tests.fuzz.mutate import mutate
from tests.fuzz.structure import change_json
from tests.fuzz.target import Target, demand
from tests.gateway.credentials import forged

ISSUER, AUDIENCE = "https://issuer.test", "guard"
END = 4_102_444_800  # 2100: kept tokens stay good
CLAIMS: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": END}
WORDS = tuple(
    word.encode()
    for word in (
        "Bearer ", "bearer ", "Basic ", ".", "..", "=", "==", '"alg":"none"', '"alg":"HS256"',
        '"alg":"EdDSA"', '"alg":"ES256"', '"kid":"', '"crit":["b64"]', '"b64":false', '"jwk":{',
        '"exp":', '"nbf":', '"iat":', '"aud":[', '"sub":', '"iss":', "1e999", "NaN", "Infinity",
        '"keys":[', '"kty":"EC"', '"kty":"OKP"', '"kty":"RSA"', '"kty":"oct"', '"crv":"P-256"',
        '"use":"enc"', '"n":"AQAB"', '"e":"AQAB"', "-----BEGIN PUBLIC KEY-----",
        "spiffe://", "spiffe://prod/", "/../", "/./", "*", "[" * 2000, '{"a":' * 500,
    )
)  # fmt: skip


def signer(name: str) -> ed25519.Ed25519PrivateKey:
    """A key that is the same in every run, so that kept tokens stay what they are."""
    return ed25519.Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def curve_signer() -> ec.EllipticCurvePrivateKey:
    """The same of another kind."""
    number = int.from_bytes(hashlib.sha256(b"curve").digest(), "big") >> 1
    return ec.derive_private_key(number, ec.SECP256R1())


def jwks() -> dict[str, Any]:
    """Both public keys."""
    first = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(signer("one").public_key()))
    second = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(curve_signer().public_key()))
    return {"keys": [{**first, "kid": "one", "use": "sig"}, {**second, "kid": "two"}]}


class Headers(Target):
    """An `authorization` header. Whatever is accepted must be one of the tokens we signed."""

    name = "jwt"
    errors = (UnauthenticatedError,)
    words = WORDS
    strict = True
    good = 4

    def __init__(self) -> None:
        super().__init__()
        keys = self.folder / "keys.json"
        keys.write_text(json.dumps(jwks()))
        settings = Tokens(
            keys=str(keys), issuer=ISSUER, audience=AUDIENCE, roles_claim="roles",
            algorithms=["EdDSA", "ES256", "RS256"],
        )  # fmt: skip
        grants = [Grant(match="jwt:alice", roles=["client"])]
        self._authenticator = Authenticator(ServerTls(), Identities(tokens=settings, grants=grants))
        self._signed: set[str] = set()

    def seeds(self) -> list[bytes]:
        """Good tokens, then near misses."""
        first = signer("one")
        good = [
            jwt.encode(CLAIMS, first, "EdDSA", {"kid": "one"}),
            jwt.encode({**CLAIMS, "roles": ["operator", "king"]}, first, "EdDSA", {"kid": "one"}),
            jwt.encode(
                {**CLAIMS, "aud": ["x", AUDIENCE], "nbf": 1}, first, "EdDSA", {"kid": "one"}
            ),
            jwt.encode(CLAIMS, curve_signer(), "ES256", {"kid": "two"}),
        ]
        self._signed = {_meaning(token) for token in good}
        pem = first.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        bad = [
            forged({"alg": "none", "kid": "one"}, CLAIMS, None),
            forged({"alg": "HS256", "kid": "one"}, CLAIMS, pem),
            jwt.encode(CLAIMS, signer("other"), "EdDSA", {"kid": "one"}),
            jwt.encode({**CLAIMS, "exp": 1}, first, "EdDSA", {"kid": "one"}),
            jwt.encode(CLAIMS, first, "EdDSA", {"kid": "one", "crit": ["b64"], "b64": False}),
        ]
        return [f"Bearer {token}".encode() for token in (*good, *bad)]

    def mutate(self, data: bytes, rng: random.Random) -> bytes:
        """Another header, payload or signature inside the token."""
        scheme, _, token = data.partition(b" ")
        parts = token.split(b".")
        at = rng.randrange(len(parts))
        parts[at] = _encoded(mutate(_decoded(parts[at]), rng, self.words, ()))
        return scheme + b" " + b".".join(parts)

    def run(self, data: bytes) -> Hashable:
        """One header, as gRPC and HTTP hand it on."""
        shown = data.decode("latin-1")
        identity = self._authenticator.by_token([shown])
        demand(identity is not None, "no identity, and no error")
        token = shown.partition(" ")[2].strip()
        demand(_meaning(token) in self._signed, f"a token that nobody signed is good: {token}")
        demand(identity and identity.name == "jwt:alice", "somebody else")
        demand(identity and identity.roles <= set(ROLES), "a role that does not exist")
        return token.count("."), len(identity.roles) if identity else 0


class KeyFiles(Target):
    """A file of public keys, JWKS or PEM."""

    name = "keys"
    errors = (ConfigError,)
    words = WORDS
    good = 3

    def seeds(self) -> list[bytes]:
        """Both forms, and files that must be refused."""
        encoding, public = serialization.Encoding.PEM, serialization.PublicFormat
        pems = [
            key.public_key().public_bytes(encoding, public.SubjectPublicKeyInfo)
            for key in (signer("one"), curve_signer())
        ]
        secret = {"kty": "oct", "k": "AAAA", "kid": "three"}
        weak = {"kty": "RSA", "n": "u1SU1L", "e": "AQAB", "kid": "four"}
        files = [jwks(), {"keys": [secret]}, {"keys": [weak]}, {"keys": []}]
        data = [json.dumps(one).encode() for one in files]
        return [data[0], *pems, *data[1:]]

    def mutate(self, data: bytes, rng: random.Random) -> bytes | None:
        """Another value in the JSON."""
        return change_json(data, rng)

    def run(self, data: bytes) -> Hashable:
        """Read it."""
        path = self.folder / "keys"
        path.write_bytes(data)
        keys = read_keys(Tokens(keys=str(path), issuer=ISSUER, audience=AUDIENCE))
        for key in keys.keys:
            demand(key.algorithms, "a key without an algorithm")
            demand(not any(name.startswith("HS") for name in key.algorithms), "a symmetric key")
        return tuple((key.id is None, key.algorithms) for key in keys.keys)


class Names(Target):
    """The names in a verified certificate: URIs, then a line feed, then common names."""

    name = "names"
    errors = (UnauthenticatedError,)
    words = WORDS
    strict = True
    good = 3

    def __init__(self) -> None:
        super().__init__()
        grants = [
            Grant(match="spiffe://prod/cameras/*", roles=["client"]),
            Grant(match="cn:operations", roles=["operator"]),
        ]
        settings = ServerTls(cert="x", key="x", client_ca="x")
        self._authenticator = Authenticator(settings, Identities(grants=grants))

    def seeds(self) -> list[bytes]:
        """Good names of both kinds, and near misses."""
        uris = ["spiffe://prod/cameras/7", "spiffe://prod/other"]
        bad = ["spiffe://prod", "spiffe://prod/a/../b", "SPIFFE://prod/cameras/7", "https://x"]
        return [
            *(f"{uri}\n".encode() for uri in uris),
            b"\noperations",
            *(f"{uri}\nx".encode() for uri in bad),
            b"spiffe://prod/cameras/7\tspiffe://prod/x\nx",
        ]

    def run(self, data: bytes) -> Hashable:
        """One certificate's names."""
        uris, _, common = data.decode("utf-8", "replace").partition("\n")
        shown = uris.split("\t") if uris else []
        identity = self._authenticator.by_certificate(shown, common.split("\t") if common else [])
        allowed = re.fullmatch(r"spiffe://prod/cameras/[\w./-]+", identity.name, re.ASCII)
        demand(bool(identity.roles) == bool(allowed or identity.name == "cn:operations"), "roles")
        path = identity.name.split("/")[3:] if identity.name.startswith("spiffe:") else []
        demand(not {"", ".", ".."} & set(path), "a path that is not plain")
        return identity.name.partition(":")[0], tuple(identity.roles)


def _meaning(token: str) -> str:
    """What a token's parts decode to: base64 has several spellings of the same bytes."""
    return b".".join(map(_decoded, token.encode("latin-1").split(b"."))).hex()


def _decoded(part: bytes) -> bytes:
    try:
        return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except ValueError:
        return part


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
