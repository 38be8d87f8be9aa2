"""`guard pack sign` and `verify`."""

from pathlib import Path

from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization

from guard.cli import main
from guard.signing.bundle import SIGNATURE
from guard.signing.keys import home, operator_key
from guard.testing import make_pack
from tests.tampering.signatures import authority, issued


def run(*arguments: object) -> tuple[int, str]:
    """Exit status and what was printed."""
    done = CliRunner().invoke(main, [str(one) for one in arguments])
    return done.exit_code, done.output


def test_an_unsigned_pack_is_signed_and_then_loads(tmp_path: Path) -> None:
    """The refusal names the command that helps, and it does."""
    folder = make_pack(tmp_path / "tiny")
    (folder / SIGNATURE).unlink()
    status, text = run("pack", "verify", folder)
    assert (status, "`guard pack sign`" in text) == (1, True)
    status, text = run("pack", "sign", folder)
    assert (status, f"signed by key {operator_key().id[:16]}" in text) == (0, True)
    status, text = run("pack", "verify", "--trust", home() / "trust" / "operator.pem", folder)
    assert status == 0, text
    assert "(operator.pem); golden vectors in" in text


def test_a_pack_is_signed_with_a_certificate(tmp_path: Path) -> None:
    """Key and certificates from files; who trusts the authority takes it, others do not."""
    folder, root = make_pack(tmp_path / "tiny"), authority()
    signer = issued(root)
    key, chain, anchor = tmp_path / "key.pem", tmp_path / "chain.pem", tmp_path / "root.pem"
    key.write_bytes(
        signer.private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    chain.write_bytes(signer.chain[0].public_bytes(serialization.Encoding.PEM))
    anchor.write_bytes(root.chain[0].public_bytes(serialization.Encoding.PEM))
    assert run("pack", "sign", folder, "--certificates", chain)[0] == 2
    assert run("pack", "sign", folder, "--key", key, "--certificates", chain)[0] == 0
    status, text = run("pack", "verify", "--trust", anchor, folder)
    assert (status, "signed by certificate CN=signer" in text) == (0, True), text
    assert run("pack", "verify", folder)[0] == 1
