"""The keys of suspects and what they do: hide who and what, seal records, wrap records' keys.

Every record is sealed with a key of its own (AES-256-GCM, used once); that key is wrapped by the
newest *key-encryption key* of a ring, numbered from 1. The *index key* makes the keyed hashes of
clients, ids and looks; it never changes, or nothing captured before would be found again.
Associated data bind what a ciphertext is, whose it is, and in which layout.
"""

import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from guard.errors import StoreError

FORMAT = "guard-suspect-keys-1"
SCHEMA = 1  # of what is sealed
BYTES = 32
NONCE = 12
TAG = 16
MAGIC = b"GSUS" + bytes([SCHEMA])
Purpose = Literal["check", "client", "id", "near", "projection"]


@dataclass(frozen=True)
class WrappingKey:
    """A key-encryption key."""

    id: int
    made: str  # UTC
    secret: bytes = field(repr=False)


@dataclass(frozen=True)
class KeyRing:
    """The index key, and every key-encryption key that is still needed; the newest is in use."""

    index: bytes = field(repr=False)
    keys: Mapping[int, WrappingKey]

    @property
    def current(self) -> int:
        """The number of the key that new records get."""
        return max(self.keys)

    def hash(self, purpose: Purpose, *parts: bytes) -> bytes:
        """HMAC-SHA-256 under the index key, for one purpose; parts cannot run into each other."""
        mac = hmac.new(self.index, purpose.encode() + b"\0", "sha256")
        for part in parts:
            mac.update(len(part).to_bytes(8, "big"))
            mac.update(part)
        return mac.digest()

    def wrap(self, key: bytes, *, suspect_id: str, tenant: str) -> tuple[int, bytes]:
        """A record's key under the newest key-encryption key, and that one's number."""
        number = self.current
        nonce = secrets.token_bytes(NONCE)
        bound = _bound("key", suspect_id, tenant, number)
        return number, nonce + AESGCM(self.keys[number].secret).encrypt(nonce, key, bound)

    def unwrap(self, number: int, wrapped: bytes, *, suspect_id: str, tenant: str) -> bytes:
        """A record's key again. KeyError for a number that the ring lacks."""
        secret = self.keys[number].secret
        bound = _bound("key", suspect_id, tenant, number)
        try:
            return AESGCM(secret).decrypt(wrapped[:NONCE], wrapped[NONCE:], bound)
        except (InvalidTag, ValueError):
            raise StoreError(
                f"suspect {suspect_id}: its key in the index was altered, or is another's"
            ) from None


def seal(plain: bytes, *, suspect_id: str, tenant: str) -> tuple[bytes, bytes]:
    """These bytes sealed, and the new key that opens them."""
    key, nonce = secrets.token_bytes(BYTES), secrets.token_bytes(NONCE)
    sealed = AESGCM(key).encrypt(nonce, plain, _bound("record", suspect_id, tenant, 0))
    return MAGIC + nonce + sealed, key


def unseal(sealed: bytes, key: bytes, *, suspect_id: str, tenant: str) -> bytes:
    """What was sealed. StoreError where a bit differs, or it is another's."""
    start = len(MAGIC) + NONCE
    if len(sealed) < start + TAG:
        raise StoreError(f"suspect {suspect_id}: its sealed record is cut short")
    if sealed[: len(MAGIC)] != MAGIC:
        raise StoreError(f"suspect {suspect_id}: its sealed record begins with an unknown mark")
    try:
        return AESGCM(key).decrypt(
            sealed[len(MAGIC) : start],
            sealed[start:],
            _bound("record", suspect_id, tenant, 0),
        )
    except (InvalidTag, ValueError):
        raise StoreError(
            f"suspect {suspect_id}: its sealed record was altered, or is another's"
        ) from None


def new_ring() -> KeyRing:
    """A ring with a fresh index key and key number 1."""
    return KeyRing(secrets.token_bytes(BYTES), {1: _new_key(1)})


def with_new_key(ring: KeyRing) -> KeyRing:
    """The same ring with one key-encryption key more."""
    number = ring.current + 1
    return KeyRing(ring.index, {**ring.keys, number: _new_key(number)})


def newest_only(ring: KeyRing) -> KeyRing:
    """The same ring without its old keys: what only they opened is gone."""
    return KeyRing(ring.index, {ring.current: ring.keys[ring.current]})


def dump_ring(ring: KeyRing) -> bytes:
    """A ring as the text of its file."""
    keys = [{"id": key.id, "made": key.made, "key": key.secret.hex()} for key in ring.keys.values()]
    content = {"format": FORMAT, "index": ring.index.hex(), "keys": keys}
    return json.dumps(content, indent=1).encode() + b"\n"


def parse_ring(raw: bytes) -> KeyRing:
    """A ring from its text. ValueError, without a word of the text, where it is malformed."""
    try:
        return _parse(raw)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise ValueError("malformed") from None


def _parse(raw: bytes) -> KeyRing:
    content = json.loads(raw)
    if content["format"] != FORMAT:
        raise ValueError("format")
    keys = [_key(entry) for entry in content["keys"]]
    numbers = [key.id for key in keys]
    if not keys or numbers[0] < 1 or numbers != sorted(set(numbers)):
        raise ValueError("numbers")
    return KeyRing(_secret(content["index"]), {key.id: key for key in keys})


def _key(entry: Mapping[str, Any]) -> WrappingKey:
    if type(entry["id"]) is not int:
        raise ValueError("id")
    return WrappingKey(entry["id"], str(entry["made"]), _secret(entry["key"]))


def _secret(text: str) -> bytes:
    secret = bytes.fromhex(text)
    if len(secret) != BYTES:
        raise ValueError("length")
    return secret


def _new_key(number: int) -> WrappingKey:
    made = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return WrappingKey(number, made, secrets.token_bytes(BYTES))


def _bound(kind: Literal["key", "record"], suspect_id: str, tenant: str, number: int) -> bytes:
    """Associated data: what it is, in which layout, whose; for a key, wrapped by which."""
    return json.dumps(["guard-suspect", SCHEMA, kind, suspect_id, tenant, number]).encode()
