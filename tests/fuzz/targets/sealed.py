"""What a store of suspects keeps: sealed records, what is inside them, and the keys."""

import random
from collections.abc import Hashable

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from guard.errors import StoreError
from guard.suspects import crypt, packing
from guard.suspects.record import Suspect
from guard.verdict import Decision, Verdict
from tests.fuzz.mutate import mutate
from tests.fuzz.structure import change_json
from tests.fuzz.target import Target, demand

ID, TENANT = "abcdefgh" * 4, "blue"


def example(*, exact: bool) -> Suspect:
    """A suspect; `exact`: of whole grey levels, which are kept as bytes."""
    levels = np.arange(3 * 4 * 4, dtype=np.float32).reshape(3, 4, 4)
    return Suspect(
        id=ID,
        taken=1.7e9,
        model="m",
        pack="sha256:0",
        tenant=TENANT,
        client="c",
        near=(1, 2, 3),
        sampled=False,
        budget=0.01,
        verdict=Verdict(Decision.FLAG, 0.004, 1, {"a": 1.5}, {"a": 0.004}),
        image=levels / np.float32(255 if exact else 100),
        evidence=np.ones(3, np.float32),
        probabilities=np.full(3, 1 / 3, np.float32),
        upstream=np.eye(3, dtype=np.float32)[0] if exact else None,
        noise_index=7,
    )


class Records(Target):
    """By the first byte: a sealed record, which opens as it was or not at all; or, as if whoever
    holds the keys had written it, a record's inside."""

    name = "records"
    errors = (StoreError,)
    words = (b'"arrays":', b'"levels"', b'"float32"', b"NaN", b"Infinity", b"-1", b"1e999", b"null")
    good = 3

    def __init__(self) -> None:
        super().__init__()
        self._plain = [packing.pack(example(exact=exact)) for exact in (True, False)]
        # The same in every run: the corpus is.
        self._key = bytes(range(32))
        self._sealed = self._seal(self._plain[0])

    def _seal(self, plain: bytes) -> bytes:
        nonce, bound = bytes(crypt.NONCE), crypt._bound("record", ID, TENANT, 0)
        return crypt.MAGIC + nonce + AESGCM(self._key).encrypt(nonce, plain, bound)

    def seeds(self) -> list[bytes]:
        """One sealed, and two insides."""
        return [b"\0" + self._sealed, *(b"\1" + plain for plain in self._plain)]

    def mutate(self, data: bytes, rng: random.Random) -> bytes | None:
        """Another value in the header of an inside, its length put right."""
        if data[:1] != b"\1" or len(data) < 5:
            return b"\0" + mutate(data[1:], rng, self.words, [self._sealed])
        size = packing.LENGTH.unpack_from(data, 1)[0]
        changed = change_json(data[5 : 5 + size], rng)
        if changed is None:
            return None
        return b"\1" + packing.LENGTH.pack(len(changed)) + changed + data[5 + size :]

    def run(self, data: bytes) -> Hashable:
        """Open it, or unpack it and pack it again."""
        if data[:1] == b"\0":
            plain = crypt.unseal(data[1:], self._key, suspect_id=ID, tenant=TENANT)
            demand(data[1:] == self._sealed, "an altered record was opened")
            return "sealed", len(plain)
        found = packing.unpack(data[1:], ID)
        again = packing.unpack(packing.pack(found), ID)
        demand(again.image.tobytes() == found.image.tobytes(), "another image after packing")
        demand((again.id, found.id) == (ID, ID), "another's id")
        return found.image.shape, found.upstream is None


class Rings(Target):
    """The file of a store's keys."""

    name = "rings"
    errors = (ValueError,)
    good = 1

    def seeds(self) -> list[bytes]:
        """One with two keys."""
        made = "2026-11-20T12:00:00Z"
        keys = {n: crypt.WrappingKey(n, made, bytes([n]) * 32) for n in (1, 2)}
        return [crypt.dump_ring(crypt.KeyRing(b"i" * 32, keys))]

    def mutate(self, data: bytes, rng: random.Random) -> bytes | None:
        """Another value."""
        return change_json(data, rng)

    def run(self, data: bytes) -> Hashable:
        """Parse it and use it."""
        ring = crypt.parse_ring(data)
        number, wrapped = ring.wrap(bytes(32), suspect_id=ID, tenant=TENANT)
        opened = ring.unwrap(number, wrapped, suspect_id=ID, tenant=TENANT)
        demand(opened == bytes(32), "a key wrapped is not the key")
        ring.hash("id", b"x")
        return len(ring.keys)
