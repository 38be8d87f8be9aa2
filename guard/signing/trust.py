"""Whose signatures count: public keys, and authorities whose certificates sign.

A certificate has to be valid now: nothing in a pack proves when it was signed.
"""

from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from guard.errors import ConfigError, PackError
from guard.signing.keys import CURVES, home, key_id

MAX_CHAIN = 8
PUBLIC = b"-----BEGIN PUBLIC KEY-----"
CERTIFICATE = b"-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True)
class Trust:
    """Keys by their id, each with the file it comes from, and authorities."""

    keys: Mapping[str, tuple[ec.EllipticCurvePublicKey, str]]
    authorities: tuple[x509.Certificate, ...] = ()

    @classmethod
    def read(cls, files: Sequence[str | Path]) -> "Trust":
        """PEM files, each with public keys or with certificates of authorities.

        Raises ConfigError that names the file.
        """
        keys: dict[str, tuple[ec.EllipticCurvePublicKey, str]] = {}
        authorities: list[x509.Certificate] = []
        for path in map(Path, files):
            try:
                found, certificates = _read(path.read_bytes())
            except OSError as error:
                raise ConfigError(f"{path}: {error.strerror or error}") from error
            except (ValueError, TypeError) as error:
                raise ConfigError(f"{path}: {error}") from error
            keys |= {key_id(key): (key, path.name) for key in found}
            authorities += certificates
        return cls(keys, tuple(authorities))

    @classmethod
    def default(cls) -> "Trust":
        """What lies in `$GUARD_HOME/trust`; nothing where there is no such folder."""
        return cls.read(sorted((home() / "trust").glob("*.pem")))

    def check(self, material: Mapping[str, Any], signature: bytes, data: bytes) -> str:
        """Who signed `data`, in words. Raises PackError where no trusted one did."""
        ways = sorted(set(material) & {"publicKey", "x509CertificateChain"})
        if ways == ["publicKey"]:
            public, who = self._known(material["publicKey"])
        elif ways == ["x509CertificateChain"]:
            public, who = self._certified(material["x509CertificateChain"])
        else:
            raise PackError("names neither a key nor a chain of certificates")
        try:
            public.verify(signature, data, ec.ECDSA(CURVES[public.curve.name]))
        except InvalidSignature:
            raise PackError(f"is not a signature of {who}") from None
        return who

    def _known(self, named: Mapping[str, Any]) -> tuple[ec.EllipticCurvePublicKey, str]:
        hint = str(named.get("hint") or "")
        if hint not in self.keys:
            trusted = f"{len(self.keys)} keys" if len(self.keys) != 1 else "1 key"
            raise PackError(f"is by key {hint[:16] or '(none)'}, which is not among the {trusted} "
                            "trusted here")  # fmt: skip
        public, file = self.keys[hint]
        return public, f"key {hint[:16]} ({file})"

    def _certified(self, chain: Mapping[str, Any]) -> tuple[ec.EllipticCurvePublicKey, str]:
        leaf, *between = _chain(chain)
        name = leaf.subject.rfc4514_string()
        public = leaf.public_key()
        if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name not in CURVES:
            raise PackError(f"is by certificate {name}, whose key is not on P-256, P-384 or P-521")
        if not self.authorities:
            raise PackError(f"is by certificate {name}, and no authority is trusted here")
        now = datetime.now(UTC)
        if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
            span = f"{leaf.not_valid_before_utc:%Y-%m-%d} to {leaf.not_valid_after_utc:%Y-%m-%d}"
            raise PackError(f"is by certificate {name}, which is valid from {span}")
        if not _may_sign(leaf):
            raise PackError(f"is by certificate {name}, which is not made for signing")
        verifier = (
            PolicyBuilder()
            .store(Store(list(self.authorities)))
            .time(now)
            .max_chain_depth(MAX_CHAIN)
            .extension_policies(
                ca_policy=ExtensionPolicy.webpki_defaults_ca(),
                ee_policy=ExtensionPolicy.permit_all(),
            )
            .build_client_verifier()
        )
        try:
            verifier.verify(leaf, between)
        except VerificationError as error:
            text = str(error).splitlines()[0]
            raise PackError(
                f"is by certificate {name}, which no authority trusted here issued: {text}"
            ) from error
        return public, f"certificate {name}"


def _chain(chain: Mapping[str, Any]) -> list[x509.Certificate]:
    given = chain.get("certificates")
    if not isinstance(given, list) or not 0 < len(given) <= MAX_CHAIN:
        raise PackError("carries no usable chain of certificates")
    try:
        raw = [b64decode(one["rawBytes"], validate=True) for one in given]
        return [x509.load_der_x509_certificate(one) for one in raw]
    except (ValueError, TypeError, KeyError) as error:
        raise PackError(f"carries a certificate that cannot be read: {error}") from error


def _may_sign(leaf: x509.Certificate) -> bool:
    """Key usage says digital signature, or extended usage says code signing, as in OMS."""
    for kind in (x509.KeyUsage, x509.ExtendedKeyUsage):
        try:
            value = leaf.extensions.get_extension_for_class(kind).value
        except (x509.ExtensionNotFound, ValueError):
            continue
        if isinstance(value, x509.KeyUsage) and value.digital_signature:
            return True
        if isinstance(value, x509.ExtendedKeyUsage) and ExtendedKeyUsageOID.CODE_SIGNING in value:
            return True
    return False


def _read(text: bytes) -> tuple[list[ec.EllipticCurvePublicKey], list[x509.Certificate]]:
    if b"PRIVATE KEY" in text:
        raise ValueError("holds a private key; trust is in public ones")
    certificates = x509.load_pem_x509_certificates(text) if CERTIFICATE in text else []
    for one in certificates:
        if not _is_authority(one):
            raise ValueError(f"{one.subject.rfc4514_string()} is no authority (not a CA)")
    keys = []
    for part in text.split(PUBLIC)[1:]:
        key = serialization.load_pem_public_key(PUBLIC + part)
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in CURVES:
            raise ValueError("a key is not on P-256, P-384 or P-521")
        keys.append(key)
    if not keys and not certificates:
        raise ValueError("holds neither a public key nor a certificate")
    return keys, certificates


def _is_authority(one: x509.Certificate) -> bool:
    try:
        return one.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
