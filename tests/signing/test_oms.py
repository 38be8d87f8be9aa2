"""Signatures are those of OpenSSF model-signing: each side reads what the other wrote."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from guard.errors import PackError
from guard.pack import Pack, sign_pack
from guard.signing.bundle import SIGNATURE
from guard.signing.keys import CURVES, Key, home, operator_key, pem
from guard.signing.trust import Trust
from guard.testing import make_pack
from tests.tampering.signatures import authority, issued, trusting

CURVE = {one.name: one for one in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pack that this operator signed."""
    return make_pack(tmp_path / "tiny")


def written(place: Path, key: Key) -> tuple[Path, Path, Path]:
    """Files of the private key, the public key and the certificates."""
    private, public, chain = place / "private.pem", place / "public.pem", place / "chain.pem"
    private.write_bytes(
        key.private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(pem(key.private.public_key()))
    chain.write_bytes(b"".join(c.public_bytes(serialization.Encoding.PEM) for c in key.chain))
    return private, public, chain


def test_the_library_takes_our_signature(folder: Path, tmp_path: Path) -> None:
    """model-signing verifies what the operator's key signed, and sees one changed byte."""
    verifying = pytest.importorskip("model_signing.verifying")
    public = home() / "trust" / "operator.pem"
    check = verifying.Config().use_elliptic_key_verifier(public_key=public)
    check.verify(folder, folder / SIGNATURE)
    (folder / "MODEL_CARD.md").write_text("another\n")
    check = verifying.Config().use_elliptic_key_verifier(public_key=public)
    with pytest.raises(ValueError, match="Hash mismatch"):
        check.verify(folder, folder / SIGNATURE)


@pytest.mark.parametrize("curve", CURVES)
def test_we_take_the_librarys_signature(folder: Path, tmp_path: Path, curve: str) -> None:
    """On every curve that the format knows."""
    signing = pytest.importorskip("model_signing.signing")
    key = Key(ec.generate_private_key(CURVE[curve]))
    private, public, _ = written(tmp_path, key)
    (folder / SIGNATURE).unlink()
    signer = signing.Config().use_elliptic_key_signer(private_key=private)
    signer.sign(folder, folder / SIGNATURE)
    assert Pack.load(folder, trust=Trust.read([public])).signer.endswith("(public.pem)")
    with pytest.raises(PackError, match="not among the 1 key"):
        Pack.load(folder)


def test_certificates_go_both_ways(folder: Path, tmp_path: Path) -> None:
    """Signed with a certificate here, verified there; and the other way round."""
    signing = pytest.importorskip("model_signing.signing")
    verifying = pytest.importorskip("model_signing.verifying")
    root = authority()
    key = issued(root)
    private, _, chain = written(tmp_path, key)
    anchor = tmp_path / "root.pem"
    anchor.write_bytes(root.chain[0].public_bytes(serialization.Encoding.PEM))
    sign_pack(folder, key)
    check = verifying.Config().use_certificate_verifier(certificate_chain=[anchor])
    check.verify(folder, folder / SIGNATURE)
    (folder / SIGNATURE).unlink()
    signer = signing.Config().use_certificate_signer(
        private_key=private, signing_certificate=chain, certificate_chain=[anchor]
    )
    signer.sign(folder, folder / SIGNATURE)
    assert Pack.load(folder, trust=Trust.read([anchor])).signer == "certificate CN=signer"


def test_a_chain_may_be_long(folder: Path) -> None:
    """An authority between the root and the signer comes along in the signature."""
    root = authority()
    between = issued(root, authority=True)
    signer = issued(between)
    sign_pack(folder, Key(signer.private, (*signer.chain, *between.chain)))
    assert Pack.load(folder, trust=trusting(root)).signer == "certificate CN=signer"


def test_a_key_that_may_sign_by_its_usage_alone(folder: Path) -> None:
    """A certificate for code signing, by an authority of another name, beside other keys."""
    root, other = authority("one"), authority("two")
    sign_pack(folder, issued(other))
    assert Pack.load(folder, trust=trusting(root, other)).signer == "certificate CN=signer"


def test_the_operator_signs_what_a_stranger_made(folder: Path, tmp_path: Path) -> None:
    """A pack of somebody else loads once the operator vouches for it."""
    sign_pack(folder, Key(ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(PackError, match="not among the 1 key"):
        Pack.load(folder)
    sign_pack(folder)
    assert Pack.load(folder).signer == f"key {operator_key().id[:16]} (operator.pem)"
