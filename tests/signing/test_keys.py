"""Keys: made once, for the owner's eyes, and refused where others could have read them."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from guard.errors import ConfigError
from guard.signing import keys
from guard.signing.keys import HOME_VARIABLE, home, operator_key, pem, read_key
from guard.signing.trust import Trust
from tests.tampering.signatures import authority, issued


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without keys."""
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    return tmp_path / "home"


def private_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    """Without a password."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def test_the_operators_key_is_made_on_first_use(empty: Path) -> None:
    """Secret half mode 0600, public half among the trusted, the same the second time."""
    assert not Trust.default().keys
    first = operator_key()
    assert operator_key().id == first.id
    secret = empty / "keys" / "operator.pem"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert list(Trust.default().keys) == [first.id]


def test_the_home_is_the_users_own_where_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """~/.config/guard."""
    monkeypatch.delenv(HOME_VARIABLE)
    assert home() == Path.home() / ".config" / "guard"


def test_who_was_slower_takes_the_key_that_is_there(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes that make the key at once end with one key."""
    first = operator_key()
    path = empty / "keys" / "operator.pem"
    before = path.read_bytes()
    keys._make(path)
    assert path.read_bytes() == before
    assert operator_key().id == first.id


def test_a_key_that_others_can_read_is_refused(empty: Path) -> None:
    """The message says what to do."""
    operator_key()
    (empty / "keys" / "operator.pem").chmod(0o640)
    with pytest.raises(ConfigError, match=r"can be read by others: chmod 600"):
        operator_key()


def test_a_home_that_cannot_be_made_is_one_line(empty: Path) -> None:
    """A file stands where the folder should be."""
    empty.write_text("")
    with pytest.raises(ConfigError, match="home"):
        operator_key()


def test_unusable_private_keys_are_named(tmp_path: Path) -> None:
    """No file, no key, another kind of key, another's certificate."""
    path, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    with pytest.raises(ConfigError, match="No such file"):
        read_key(path)
    path.write_text("nothing")
    with pytest.raises(ConfigError, match=r"key\.pem cannot be used"):
        read_key(path)
    path.write_bytes(private_pem(ec.generate_private_key(ec.SECP256K1())))
    with pytest.raises(ConfigError, match="no key on P-256"):
        read_key(path)
    path.write_bytes(private_pem(rsa.generate_private_key(65537, 2048)))
    with pytest.raises(ConfigError, match="no key on P-256"):
        read_key(path)
    signer, other = issued(authority()), issued(authority())
    path.write_bytes(private_pem(signer.private))
    chain.write_bytes(other.chain[0].public_bytes(serialization.Encoding.PEM))
    with pytest.raises(ConfigError, match="is not the one of"):
        read_key(path, chain)


def test_trust_is_in_public_keys_and_authorities(tmp_path: Path) -> None:
    """Both kinds, several in a file; anything else is refused by its file."""
    path = tmp_path / "trust.pem"
    one, two = authority("one"), issued(authority())
    public = [pem(key.private.public_key()) for key in (one, two)]
    path.write_bytes(b"".join([*public, one.chain[0].public_bytes(serialization.Encoding.PEM)]))
    trust = Trust.read([path])
    assert set(trust.keys) == {one.id, two.id}
    assert trust.authorities == one.chain
    for content, complaint in (
        (b"", "neither a public key nor a certificate"),
        (private_pem(one.private), "holds a private key"),
        (two.chain[0].public_bytes(serialization.Encoding.PEM), "is no authority"),
        (pem(ec.generate_private_key(ec.SECP256K1()).public_key()), "not on P-256"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "trust.pem: "),
    ):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=complaint):
            Trust.read([path])
    with pytest.raises(ConfigError, match="No such file"):
        Trust.read([tmp_path / "none.pem"])
