"""The keys of an audit log: what links its records, hides its subjects and signs its checkpoints.

One file, readable by its owner alone, holds every key there ever was, numbered from 1. A rotation
adds a number; the old ones stay, so that old records can still be verified. A *reader's copy*
verifies and cannot sign, nor find out who is meant.
"""

import hmac
import json
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from guard.durable import write_whole
from guard.errors import ConfigError

FORMAT = "guard-audit-keys-1"
BYTES = 32
ACTOR_HEX = 32  # characters of a subject's keyed hash that are kept: 128 bits
MAX_FILE = 1 << 20


@dataclass(frozen=True)
class AuditKey:
    """The keys of one number."""

    id: int
    made: str  # UTC
    mac: bytes = field(repr=False)  # links the records
    public: bytes  # checks the checkpoints
    actor: bytes | None = field(repr=False)  # hides the subjects; not in a reader's copy
    seed: bytes | None = field(repr=False)  # signs the checkpoints; not in a reader's copy


@dataclass(frozen=True)
class KeyRing:
    """Every key of one log; the one with the highest number is in use."""

    keys: Mapping[int, AuditKey]

    @property
    def current(self) -> AuditKey:
        """The key that new records get."""
        return self.keys[max(self.keys)]

    def link(self, number: int, previous: bytes, body: bytes) -> bytes:
        """HMAC-SHA-256 over the previous record's link and this record's bytes."""
        return hmac.digest(self.keys[number].mac, previous + body, "sha256")

    def actor(self, name: str) -> str:
        """A subject as the log names it, "" for none."""
        return self.actors(name)[-1] if name else ""

    def actors(self, name: str) -> list[str]:
        """A subject under every key there was, the one in use last."""
        found = []
        for number in sorted(self.keys):
            key = self.keys[number].actor
            if key is None:
                raise ConfigError("a reader's copy of the keys does not know subjects", key="key")
            found.append(f"{number}:{hmac.digest(key, name.encode(), 'sha256').hex()[:ACTOR_HEX]}")
        return found

    def sign(self, data: bytes) -> bytes:
        """The Ed25519 signature of the key in use."""
        seed = self.current.seed
        if seed is None:
            raise ConfigError("a reader's copy of the keys cannot sign", key="key")
        return Ed25519PrivateKey.from_private_bytes(seed).sign(data)

    def signed(self, number: int, data: bytes, signature: bytes) -> bool:
        """Whether the key of this number signed these bytes."""
        if number not in self.keys:
            return False
        try:
            Ed25519PublicKey.from_public_bytes(self.keys[number].public).verify(signature, data)
        except InvalidSignature:
            return False
        return True


def load_keys(path: Path) -> KeyRing:
    """The keys in a file; `ConfigError` where it is missing, malformed or readable by others."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
            raw = file.read(MAX_FILE)
    except OSError as error:
        raise ConfigError(f"audit key {path}: {error.strerror}", key="key_file") from error
    if mode & 0o077:
        raise ConfigError(
            f"audit key {path} may be read or written by others: chmod 600 {path}", key="key_file"
        )
    return parse_keys(raw, f"audit key {path}", "key_file")


def parse_keys(raw: bytes, what: str, key: str) -> KeyRing:
    """The keys in the bytes of a file; `ConfigError` about `what` where they are malformed."""
    try:
        return _parse(raw)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise ConfigError(f"{what} is malformed", key=key) from None  # its cause quotes the keys


def make_keys(path: Path) -> KeyRing:
    """A new file with key number 1; never overwrites one."""
    ring = KeyRing({1: _new_key(1)})
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(path, ring, new=True)
    return ring


def rotate_keys(path: Path) -> KeyRing:
    """Add a key to the file; a gateway uses it from its next start on."""
    ring = load_keys(path)
    if ring.current.seed is None:
        raise ConfigError(f"{path} is a reader's copy: rotate the gateway's own", key="key_file")
    number = ring.current.id + 1
    ring = KeyRing({**ring.keys, number: _new_key(number)})
    _write(path, ring, new=False)
    return ring


def write_reader(ring: KeyRing, path: Path) -> None:
    """A copy for whoever verifies: no signing keys, no subjects."""
    keys = {
        number: AuditKey(number, key.made, key.mac, key.public, None, None)
        for number, key in ring.keys.items()
    }
    _write(path, KeyRing(keys), new=True)


def _new_key(number: int) -> AuditKey:
    seed = secrets.token_bytes(BYTES)
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    made = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    mac, actor = secrets.token_bytes(BYTES), secrets.token_bytes(BYTES)
    return AuditKey(number, made, mac, public, actor, seed)


def _parse(raw: bytes) -> KeyRing:
    content = json.loads(raw)
    if content["format"] != FORMAT:
        raise ValueError(content["format"])
    keys = [_key(entry) for entry in content["keys"]]
    if not keys or [key.id for key in keys] != list(range(1, len(keys) + 1)):
        raise ValueError("numbers")
    return KeyRing({key.id: key for key in keys})


def _key(entry: Mapping[str, Any]) -> AuditKey:
    values = {
        name: bytes.fromhex(entry[name]) if entry.get(name) else None
        for name in ("mac", "public", "actor", "seed")
    }
    if any(value is not None and len(value) != BYTES for value in values.values()):
        raise ValueError("length")
    mac, public = values["mac"], values["public"]
    if mac is None or public is None:
        raise ValueError("a key is missing")
    number, made = int(entry["id"]), str(entry["made"])
    return AuditKey(number, made, mac, public, values["actor"], values["seed"])


def _write(path: Path, ring: KeyRing, *, new: bool) -> None:
    """All or nothing, and durable: keys that are lost make a log unverifiable."""
    entries = []
    for key in ring.keys.values():
        entry = {"id": key.id, "made": key.made, "mac": key.mac.hex(), "public": key.public.hex()}
        if key.actor is not None and key.seed is not None:
            entry |= {"actor": key.actor.hex(), "seed": key.seed.hex()}
        entries.append(entry)
    text = json.dumps({"format": FORMAT, "keys": entries}, indent=1) + "\n"
    try:
        write_whole(path, text.encode(), new=new)
    except OSError as error:
        raise ConfigError(f"audit key {path}: {error.strerror}", key="key_file") from error
