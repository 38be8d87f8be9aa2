"""Keys that sign packs: the operator's own, made on first use, or one with a certificate.

Everything of one person or machine lies in a folder, `$GUARD_HOME` (default `~/.config/guard`):
`keys/operator.pem` is secret, what lies in `trust/` says whose packs load.
"""

import contextlib
import hashlib
import os
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from guard.durable import write_whole
from guard.errors import ConfigError

HOME_VARIABLE = "GUARD_HOME"
OPERATOR = "operator.pem"
CURVES: dict[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}


@dataclass(frozen=True)
class Key:
    """A private key, and the certificates that speak for it, its own first."""

    private: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def id(self) -> str:
        """The SHA-256 of its public half, in hexadecimal: what a signature names it by."""
        return key_id(self.private.public_key())

    def sign(self, data: bytes) -> bytes:
        """ECDSA, with the hash that fits the curve."""
        return self.private.sign(data, ec.ECDSA(CURVES[self.private.curve.name]))

    def material(self) -> dict[str, Any]:
        """What a verifier needs to know, as the bundle carries it."""
        if not self.chain:
            return {"publicKey": {"hint": self.id}, "tlogEntries": []}
        raw = [one.public_bytes(serialization.Encoding.DER) for one in self.chain]
        certificates = [{"rawBytes": b64encode(one).decode()} for one in raw]
        return {"x509CertificateChain": {"certificates": certificates}, "tlogEntries": []}


def home() -> Path:
    """The folder of keys and trust."""
    return Path(os.environ.get(HOME_VARIABLE) or Path.home() / ".config" / "guard")


def operator_key() -> Key:
    """This operator's key; made on first use, and its public half put among the trusted.

    Raises ConfigError where it cannot be made, or read, or where others can read it.
    """
    path, public = home() / "keys" / OPERATOR, home() / "trust" / OPERATOR
    try:
        if not path.exists():
            _make(path)
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path} can be read by others: chmod 600")
        key = read_key(path)
        if not public.exists():
            public.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                write_whole(public, pem(key.private.public_key()), new=True)
    except OSError as error:
        raise ConfigError(f"{error.filename or path}: {error.strerror or error}") from error
    return key


def read_key(path: Path, chain: Path | None = None) -> Key:
    """A private key in PEM without a password, and its certificates. Raises ConfigError."""
    try:
        private = serialization.load_pem_private_key(path.read_bytes(), password=None)
        found = x509.load_pem_x509_certificates(chain.read_bytes()) if chain else []
    except OSError as error:
        raise ConfigError(f"{error.filename or path}: {error.strerror or error}") from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{chain or path} cannot be used: {error}") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey) or private.curve.name not in CURVES:
        raise ConfigError(f"{path} is no key on P-256, P-384 or P-521")
    if found and found[0].public_key() != private.public_key():
        raise ConfigError(f"the first certificate in {chain} is not the one of {path}")
    return Key(private, tuple(found))


def key_id(public: ec.EllipticCurvePublicKey) -> str:
    """The SHA-256 of the key in PEM, as model-signing has it."""
    return hashlib.sha256(pem(public)).hexdigest()


def pem(public: ec.EllipticCurvePublicKey) -> bytes:
    """A public key as text."""
    return public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _make(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    private = ec.generate_private_key(ec.SECP256R1())
    text = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with contextlib.suppress(FileExistsError):  # another process was faster
        write_whole(path, text, new=True)
