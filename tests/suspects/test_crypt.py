"""Sealing, wrapping and hashing: against published vectors and an AES-GCM written here."""

import dataclasses
import hmac

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.errors import StoreError
from guard.suspects import crypt
from guard.suspects.crypt import KeyRing

BINARY = st.binary(max_size=200)
NAME = st.text(max_size=20)


def block(key: bytes, data: bytes) -> bytes:
    """One block of AES, the only thing that is not written out here."""
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305
    return encryptor.update(data) + encryptor.finalize()


def ghash(subkey: int, data: bytes) -> int:
    """NIST SP 800-38D, 6.4: multiplication in GF(2^128), bit by bit."""
    total = 0
    for start in range(0, len(data), 16):
        total ^= int.from_bytes(data[start : start + 16].ljust(16, b"\0"), "big")
        product, shifted = 0, subkey
        for bit in range(127, -1, -1):
            if total >> bit & 1:
                product ^= shifted
            shifted = shifted >> 1 ^ (0xE1 << 120 if shifted & 1 else 0)
        total = product
    return total


def gcm(key: bytes, nonce: bytes, plain: bytes, bound: bytes) -> bytes:
    """AES-GCM with a 96-bit nonce: ciphertext and tag (SP 800-38D, algorithm 4)."""
    counter = nonce + b"\0\0\0\1"
    stream = b""
    for number in range(2, 3 + len(plain) // 16):
        stream += block(key, nonce + number.to_bytes(4, "big"))
    cipher = bytes(a ^ b for a, b in zip(plain, stream, strict=False))
    padded = bound.ljust(-(-len(bound) // 16) * 16, b"\0") + cipher.ljust(
        -(-len(cipher) // 16) * 16, b"\0"
    )
    lengths = (8 * len(bound)).to_bytes(8, "big") + (8 * len(cipher)).to_bytes(8, "big")
    subkey = int.from_bytes(block(key, bytes(16)), "big")
    tag = ghash(subkey, padded + lengths) ^ int.from_bytes(block(key, counter), "big")
    return cipher + tag.to_bytes(16, "big")


def test_the_independent_gcm_is_right() -> None:
    """McGrew and Viega, The Galois/Counter Mode, test cases 13, 14 and 16 (256-bit keys)."""
    zero = bytes(32)
    assert gcm(zero, bytes(12), b"", b"").hex() == "530f8afbc74536b9a963b4f1c4cb738b"
    assert gcm(zero, bytes(12), bytes(16), b"").hex() == (
        "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"
    )
    key = bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2)
    plain = bytes.fromhex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c959568095"
        "32fcf0e2449a6b525b16aedf5aa0de657ba637b39"
    )
    bound = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
    sealed = gcm(key, bytes.fromhex("cafebabefacedbaddecaf888"), plain, bound)
    assert sealed[-16:].hex() == "76fc6ece0f4e1768cddf8853bb2d551b"
    assert sealed[:8].hex() == "522dc1f099567d07"


@settings(max_examples=60, deadline=None)
@given(BINARY, NAME, NAME)
def test_sealing_is_aes_256_gcm_over_what_it_says(plain: bytes, name: str, tenant: str) -> None:
    """Byte for byte what the independent one makes, and the associated data are all in it."""
    sealed, key = crypt.seal(plain, suspect_id=name, tenant=tenant)
    assert len(key) == 32
    assert sealed[:5] == b"GSUS\1"
    bound = crypt._bound("record", name, tenant, 0)
    assert sealed[17:] == gcm(key, sealed[5:17], plain, bound)
    assert crypt.unseal(sealed, key, suspect_id=name, tenant=tenant) == plain


@settings(max_examples=60, deadline=None)
@given(BINARY, NAME, NAME, NAME, NAME)
def test_nothing_opens_under_another_name(
    plain: bytes, name: str, tenant: str, other_name: str, other_tenant: str
) -> None:
    """Id and tenant are bound in records and keys alike, and cannot run into each other."""
    ring = crypt.new_ring()
    sealed, key = crypt.seal(plain, suspect_id=name, tenant=tenant)
    number, wrapped = ring.wrap(key, suspect_id=name, tenant=tenant)
    assert ring.unwrap(number, wrapped, suspect_id=name, tenant=tenant) == key
    if (name, tenant) != (other_name, other_tenant):
        with pytest.raises(StoreError):
            crypt.unseal(sealed, key, suspect_id=other_name, tenant=other_tenant)
        with pytest.raises(StoreError):
            ring.unwrap(number, wrapped, suspect_id=other_name, tenant=other_tenant)


def test_a_key_opens_only_under_its_own_number_and_kind() -> None:
    """The same secret under another number, or a record in a key's place, does not open."""
    ring = crypt.new_ring()
    number, wrapped = ring.wrap(bytes(32), suspect_id="i", tenant="t")
    twin = KeyRing(ring.index, {2: dataclasses.replace(ring.keys[1], id=2)})
    with pytest.raises(StoreError):
        twin.unwrap(2, wrapped, suspect_id="i", tenant="t")
    with pytest.raises(KeyError):
        twin.unwrap(number, wrapped, suspect_id="i", tenant="t")
    with pytest.raises(StoreError):
        crypt.unseal(crypt.MAGIC + wrapped, ring.keys[1].secret, suspect_id="i", tenant="t")


def test_nothing_is_ever_sealed_the_same_way_twice() -> None:
    """Keys and nonces are new each time: a thousand sealings, no two alike."""
    ring = crypt.new_ring()
    sealed = [crypt.seal(b"x", suspect_id="i", tenant="t") for _ in range(1000)]
    assert len({key for _, key in sealed}) == 1000
    assert len({content[5:17] for content, _ in sealed}) == 1000
    wrapped = {ring.wrap(bytes(32), suspect_id="i", tenant="t")[1][:12] for _ in range(1000)}
    assert len(wrapped) == 1000


def test_hashes_are_hmac_sha_256_and_parts_keep_apart() -> None:
    """RFC 2104 over purpose and lengths; a purpose's hash is no other purpose's."""
    ring = crypt.new_ring()
    message = b"client\0" + (3).to_bytes(8, "big") + b"ada"
    assert ring.hash("client", b"ada") == hmac.digest(ring.index, message, "sha256")
    ways = {
        ring.hash("id", b"ab", b"c"), ring.hash("id", b"a", b"bc"), ring.hash("id", b"abc"),
        ring.hash("near", b"ab", b"c"), crypt.new_ring().hash("id", b"ab", b"c"),
    }  # fmt: skip
    assert len(ways) == 5


def test_a_ring_survives_its_file_and_its_rotation() -> None:
    """What is written is read; a new key is in use, and the newest alone is left in the end."""
    ring = crypt.with_new_key(crypt.new_ring())
    assert crypt.parse_ring(crypt.dump_ring(ring)) == ring
    assert ring.current == 2
    last = crypt.newest_only(ring)
    assert list(last.keys) == [2]
    assert crypt.parse_ring(crypt.dump_ring(last)) == last
    assert last.index == ring.index


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-30],
        lambda text: text.replace(b"keys-1", b"keys-2"),
        lambda text: text.replace(b'"id": 1', b'"id": 0'),
        lambda text: text.replace(b'"id": 1', b'"id": true'),
        lambda text: text.replace(b'"id": 1', b'"id": "1"'),
        lambda text: text.replace(b'"id": 2', b'"id": 1'),
        lambda text: text.replace(b'"key": "', b'"key": "00'),
        lambda text: text.replace(b'"index": "', b'"index": "zz'),
        lambda _: b"",
        lambda _: b"[]",
        lambda _: b"[" * 100_000,
        lambda _: b"\xff\xfe",
        lambda text: text.replace(b'"keys": [', b'"keys": [], "k": ['),
    ],
)
def test_a_malformed_ring_is_refused_without_quoting_it(change: object) -> None:
    """Cut, of another format, with other numbers or lengths: refused, and no key in the text."""
    ring = crypt.with_new_key(crypt.new_ring())
    raw = change(crypt.dump_ring(ring))  # type: ignore[operator]
    with pytest.raises(ValueError, match="malformed") as caught:
        crypt.parse_ring(raw)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
