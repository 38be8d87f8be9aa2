"""JSON Web Tokens, read with PyJWT: whose they are and whether they are good.

Only public keys from one local file check signatures; nothing is ever fetched. A key serves the
algorithms of its own kind that the settings list, so a token cannot choose how it is checked.
"""

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from guard.config.access import Tokens
from guard.errors import ConfigError
from guard.gateway.status import UnauthenticatedError
from guard.gateway.watched import Watched, read
from guard.metrics import AuthFailure

KEY = "gateway.identity.tokens.keys"
LONGEST = 8 << 10  # bytes of a token
LONGEST_SUBJECT = 256
SMALLEST_RSA = 2048  # bits
REMEMBERED = 1024  # verified tokens
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
# What is wrong with a token, most special first: several of these derive from DecodeError.
_FAULTS: tuple[tuple[type[Exception], AuthFailure], ...] = (
    (jwt.ExpiredSignatureError, "expired"),
    (jwt.ImmatureSignatureError, "not_yet_valid"),
    (jwt.InvalidAudienceError, "audience"),
    (jwt.InvalidIssuerError, "issuer"),
    (jwt.InvalidAlgorithmError, "algorithm"),
    (jwt.InvalidSignatureError, "signature"),
    (jwt.MissingRequiredClaimError, "claims"),
)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a good token says."""

    subject: str
    roles: tuple[str, ...]  # as in the token, known or not
    ends: float  # Unix time after which it must not be believed


@dataclass(frozen=True)
class Key:
    """A public key and how it may be used."""

    id: str | None
    public: Any
    algorithms: tuple[str, ...]


@dataclass
class Keys:
    """The keys of one state of the file, and the tokens that they have already verified."""

    keys: list[Key]
    verified: OrderedDict[bytes, Claims] = field(default_factory=OrderedDict)

    def choose(self, header: Mapping[str, Any]) -> Key:
        """The key a token names; a token may leave that out where there is one key."""
        name = header.get("kid")
        if name is None and len(self.keys) == 1:
            return self.keys[0]
        for key in self.keys:
            if name is not None and key.id == name:
                return key
        raise UnauthenticatedError("unknown_key")


class TokenReader:
    """Reads tokens by these settings; the key file is read again when it changes."""

    def __init__(self, settings: Tokens) -> None:
        self._settings = settings
        self._keys = Watched("token_keys", (settings.keys,), lambda: read_keys(settings))

    def read(self, token: str) -> Claims:
        """The claims of a good token; UnauthenticatedError for any other."""
        if len(token) > LONGEST:
            raise UnauthenticatedError("malformed")
        keys = self._keys.get()
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        claims = keys.verified.get(digest)
        if claims is None:
            claims = keys.verified[digest] = self._verified(token, keys)
            if len(keys.verified) > REMEMBERED:
                keys.verified.popitem(last=False)
        if time.time() >= claims.ends:
            raise UnauthenticatedError("expired")
        return claims

    def _verified(self, token: str, keys: Keys) -> Claims:
        settings = self._settings
        try:
            header = jwt.get_unverified_header(token)
            if "crit" in header or "b64" in header:
                raise UnauthenticatedError("malformed")
            key = keys.choose(header)
            payload = jwt.decode(
                token,
                key.public,
                algorithms=key.algorithms,
                audience=settings.audience,
                issuer=settings.issuer,
                leeway=settings.leeway,
                options={"require": ["exp", "aud", "iss", "sub"]},
            )
            return self._claims(payload)
        except jwt.PyJWTError as error:
            raise UnauthenticatedError(_fault(error)) from error
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise UnauthenticatedError("malformed") from error

    def _claims(self, payload: Mapping[str, Any]) -> Claims:
        subject = payload["sub"]
        if not subject or len(subject) > LONGEST_SUBJECT or not subject.isprintable():
            raise UnauthenticatedError("claims")
        listed = payload.get(self._settings.roles_claim, []) if self._settings.roles_claim else []
        if not isinstance(listed, list):
            raise UnauthenticatedError("claims")
        roles = tuple(role for role in listed if isinstance(role, str))
        return Claims(subject, roles, int(payload["exp"]) + self._settings.leeway)


def read_keys(settings: Tokens) -> Keys:
    """The file's keys; ConfigError for one that is empty, private, symmetric or too weak."""
    data = read(settings.keys, KEY)
    keys = list((_jwks if data.lstrip().startswith(b"{") else _pem)(data, settings))
    names = [key.id for key in keys]
    if not keys:
        raise _unusable(settings, "holds no key that fits the algorithms allowed")
    if len(set(names)) != len(names) or (len(keys) > 1 and None in names):
        raise _unusable(settings, "has keys without a `kid` of their own")
    return Keys(keys)


def _jwks(data: bytes, settings: Tokens) -> Iterator[Key]:
    try:
        listed = json.loads(data)["keys"]
        entries = [dict(entry) for entry in listed]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _unusable(settings, "is no JWKS") from error
    for entry in entries:
        if entry.get("use", "sig") != "sig":
            continue
        if entry.get("kty") == "oct" or "d" in entry:
            raise _unusable(settings, "holds a secret key: public keys only")
        try:
            public = jwt.PyJWK(entry).key
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise _unusable(settings, "holds a key that cannot be read") from error
        name = entry.get("kid")
        if name is not None and not isinstance(name, str):
            raise _unusable(settings, "has a `kid` that is no text")
        yield from _key(public, settings, name, entry.get("alg"))


def _pem(data: bytes, settings: Tokens) -> Iterator[Key]:
    if b"PRIVATE KEY-----" in data:
        raise _unusable(settings, "holds a secret key: public keys only")
    try:
        public = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _unusable(settings, "is neither JWKS nor a public key in PEM") from error
    yield from _key(public, settings, None, None)


def _key(public: Any, settings: Tokens, name: str | None, only: Any) -> Iterator[Key]:
    """The key, unless it fits no algorithm that the settings allow."""
    allowed = tuple(
        one for one in settings.algorithms if one in _fitting(public) and only in (None, one)
    )
    if isinstance(public, rsa.RSAPublicKey) and public.key_size < SMALLEST_RSA:
        raise _unusable(settings, f"has an RSA key below {SMALLEST_RSA} bits")
    if allowed:
        yield Key(name, public, allowed)


def _fitting(public: Any) -> tuple[str, ...]:
    if isinstance(public, rsa.RSAPublicKey):
        return ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
    if isinstance(public, ec.EllipticCurvePublicKey):
        return (_CURVES.get(public.curve.name, ""),)
    return ("EdDSA",) if isinstance(public, ed25519.Ed25519PublicKey) else ()


def _fault(error: Exception) -> AuthFailure:
    return next((reason for kind, reason in _FAULTS if isinstance(error, kind)), "malformed")


def _unusable(settings: Tokens, complaint: str) -> ConfigError:
    return ConfigError(f"{KEY}: {settings.keys} {complaint}", key=KEY)
