"""Certificates and tokens for the tests, good ones and every kind of bad one."""

import base64
import datetime
import hashlib
import hmac
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from guard.config.access import Grant, Identities, ServerTls, Tokens
from guard.gateway.identity import ROLES

DOMAIN = "spiffe://test"
ISSUER, AUDIENCE, KID = "https://issuer.test", "guard", "first"
PRIVATE = serialization.PrivateFormat.PKCS8
PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Pair:
    """A private key and its certificate, in PEM."""

    key: bytes
    cert: bytes


class Authority:
    """Issues certificates; `cert` is its own in PEM."""

    def __init__(self, name: str = "authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        now = datetime.datetime.now(datetime.UTC)
        builder = _builder(self._name, self._name, self._key, now, -1, 24)
        builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
        self.cert = builder.sign(self._key, hashes.SHA256()).public_bytes(PEM)

    def issue(
        self,
        common_name: str = "",
        *,
        uris: Sequence[str] = (),
        dns: Sequence[str] = (),
        hours: tuple[float, float] = (-1, 24),
        own_signature: bool = False,
    ) -> Pair:
        """A certificate valid between these hours from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(common_name)
        issuer = subject if own_signature else self._name
        now = datetime.datetime.now(datetime.UTC)
        builder = _builder(subject, issuer, key, now, *hours)
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
        names += [x509.DNSName(name) for name in dns]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        cert = builder.sign(key if own_signature else self._key, hashes.SHA256())
        private = key.private_bytes(PEM, PRIVATE, serialization.NoEncryption())
        return Pair(private, cert.public_bytes(PEM))


def _name(common_name: str) -> x509.Name:
    wanted = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
    return x509.Name(wanted)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Any, now: datetime.datetime, *hours: float
) -> x509.CertificateBuilder:
    start, end = (now + datetime.timedelta(hours=hour) for hour in hours)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    return builder.not_valid_before(start).not_valid_after(end)


class Issuer:
    """Signs tokens; `jwks` and `pem` are its public key."""

    def __init__(self, kid: str = KID) -> None:
        self.kid = kid
        self.key = ec.generate_private_key(ec.SECP256R1())
        public = self.key.public_key()
        entry = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(public))
        self.jwk = {**entry, "kid": kid, "use": "sig"}
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        self.pem = public.public_bytes(PEM, form)

    def token(self, subject: str, *, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token of this subject; claims replace the good ones, None leaves one out."""
        now = time.time()
        good = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "exp": now + 600}
        payload = {key: value for key, value in {**good, **claims}.items() if value is not None}
        return jwt.encode(payload, self.key, "ES256", {"kid": self.kid, **(headers or {})})


def jwks(*issuers: Issuer) -> str:
    """A key file."""
    return json.dumps({"keys": [issuer.jwk for issuer in issuers]})


def forged(header: dict[str, Any], payload: dict[str, Any], secret: bytes | None) -> str:
    """A token made by hand: signed with HMAC, or not at all."""
    parts = [_segment(json.dumps(part).encode()) for part in (header, payload)]
    signed = ".".join(parts)
    mac = b"" if secret is None else hmac.digest(secret, signed.encode(), hashlib.sha256)
    return f"{signed}.{_segment(mac)}"


def _segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass(frozen=True)
class World:
    """A gateway's files and who stands behind them."""

    folder: Path
    authority: Authority
    stranger: Authority  # nobody trusts it
    issuer: Issuer
    impostor: Issuer  # has the issuer's key id and another key

    def tls(self, *, clients: bool) -> ServerTls:
        """The gateway's own certificates; `clients` must show theirs too."""
        at = {name: str(self.folder / f"{name}.pem") for name in ("cert", "key", "ca")}
        return ServerTls(cert=at["cert"], key=at["key"], client_ca=at["ca"] if clients else "")

    def identities(self, *, tokens: bool = True, certificates: bool = True) -> Identities:
        """A SPIFFE id and a subject of each role's own name."""
        grants = []
        for role in ROLES:
            if certificates:
                grants.append(Grant(match=f"{DOMAIN}/{role}", roles=[role]))
            if tokens:
                grants.append(Grant(match=f"jwt:{role}", roles=[role]))
        read = Tokens(keys=str(self.folder / "keys.json"), issuer=ISSUER, audience=AUDIENCE)
        return Identities(tokens=read if tokens else Tokens(), grants=grants)

    def write(self, server: Pair, ca: bytes) -> None:
        """The certificate files as they shall be now."""
        for name, data in {"cert": server.cert, "key": server.key, "ca": ca}.items():
            (self.folder / f"{name}.pem").write_bytes(data)


def make_world(folder: Path) -> World:
    """Files for a gateway in this folder."""
    world = World(folder, Authority(), Authority("stranger"), Issuer(), Issuer())
    server = world.authority.issue("gateway", dns=("localhost",))
    world.write(server, world.authority.cert)
    (folder / "keys.json").write_text(jwks(world.issuer))
    return world


def certificates(world: World, role: str) -> dict[str, tuple[Pair | None, str]]:
    """What may be shown as a certificate for a role, and what that should give.

    `TLS`: no connection; `UNAUTHENTICATED`, `PERMISSION_DENIED`: these; `GOOD`: as the role may.
    """
    issue, identity = world.authority.issue, f"{DOMAIN}/{role}"
    return {
        "good": (issue(uris=(identity,), dns=("client.test",)), "GOOD"),
        "none": (None, "TLS"),
        "wrong authority": (world.stranger.issue(uris=(identity,)), "TLS"),
        "authority of the same name": (Authority().issue(uris=(identity,)), "TLS"),
        "expired": (issue(uris=(identity,), hours=(-2, -1)), "TLS"),
        "not yet valid": (issue(uris=(identity,), hours=(1, 2)), "TLS"),
        "self-signed": (issue("x", uris=(identity,), own_signature=True), "TLS"),
        "no name at all": (issue(), "UNAUTHENTICATED"),
        "two ids": (issue(uris=(identity, f"{DOMAIN}/other")), "UNAUTHENTICATED"),
        "malformed id": (issue("x", uris=(f"{identity}?x=1",)), "UNAUTHENTICATED"),
        "id with dots": (issue("x", uris=(f"{DOMAIN}/x/../{role}",)), "UNAUTHENTICATED"),
        "another id": (issue(uris=(f"{DOMAIN}/other",)), "PERMISSION_DENIED"),
        "another domain": (issue(uris=(f"spiffe://other/{role}",)), "PERMISSION_DENIED"),
        "id as common name": (issue(identity), "PERMISSION_DENIED"),
        "role as common name": (issue(role), "PERMISSION_DENIED"),
    }


def tokens(world: World, role: str) -> dict[str, tuple[str | None, str]]:
    """What may be shown as `authorization` for a role, and what that should give."""
    issuer, now, bad = world.issuer, time.time(), "UNAUTHENTICATED"
    good = issuer.token(role)
    payload = {"iss": ISSUER, "aud": AUDIENCE, "sub": role, "exp": now + 600}
    shown = {
        "none alg": forged({"alg": "none", "typ": "JWT", "kid": KID}, payload, None),
        "None alg": forged({"alg": "None", "typ": "JWT", "kid": KID}, payload, None),
        "public key as HMAC secret": forged({"alg": "HS256", "kid": KID}, payload, issuer.pem),
        "wrong key": world.impostor.token(role),
        "unknown kid": issuer.token(role, headers={"kid": "other"}),
        "kid is a path": issuer.token(role, headers={"kid": "../keys.json"}),
        "own key inside": world.impostor.token(role, headers={"jwk": world.impostor.jwk}),
        "critical header": issuer.token(role, headers={"crit": ["b64"], "x": 1}),
        "expired": issuer.token(role, exp=now - 120),
        "no expiry": issuer.token(role, exp=None),
        "not yet valid": issuer.token(role, nbf=now + 120),
        "wrong audience": issuer.token(role, aud="other"),
        "no audience": issuer.token(role, aud=None),
        "wrong issuer": issuer.token(role, iss="https://other.test"),
        "no subject": issuer.token(role, sub=None),
        "truncated": good[:-9],
        "other payload": f"{good.split('.')[0]}.{good.split('.')[1][:-4]}AAAA.{good.split('.')[2]}",
        "garbage": "no.token.here",
        "empty": "",
        "huge": "a" * 8200,
    }
    answers: dict[str, tuple[str | None, str]] = {
        name: (f"Bearer {token}", bad) for name, token in shown.items()
    }
    return answers | {
        "good": (f"Bearer {good}", "GOOD"),
        "no token": (None, bad),
        "another scheme": (f"Basic {good}", bad),
        "no roles": (f"Bearer {issuer.token('nobody')}", "PERMISSION_DENIED"),
    }


def locked_key() -> bytes:
    """A private key behind a password, which a server cannot type."""
    lock = serialization.BestAvailableEncryption(b"password")
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(PEM, PRIVATE, lock)
