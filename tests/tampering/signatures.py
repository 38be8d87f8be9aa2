"""Tampering with signatures, with trust, and with time."""

import datetime
import hashlib
import json
import shutil
from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from guard.pack import write_manifest
from guard.signing import bundle as bundle_module
from guard.signing.bundle import SIGNATURE
from guard.signing.keys import Key, operator_key
from guard.signing.trust import Trust
from guard.testing import make_pack
from tests.sealing import seal
from tests.tampering.frame import Case, Stage

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
SIGNING, SERVING = ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.SERVER_AUTH


def fresh() -> Key:
    """A key that nobody knows."""
    return Key(ec.generate_private_key(ec.SECP256R1()))


def certificate(
    name: str,
    key: Key,
    issuer: "Key | None" = None,
    *,
    authority: bool = False,
    days: tuple[int, int] = (-1, 30),
    usage: x509.ObjectIdentifier = SIGNING,
) -> x509.Certificate:
    """A certificate for a key; issuer None: by itself. days: validity from now."""
    said = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    public = key.private.public_key()
    above = issuer or key
    by = above.chain[0].subject if above.chain else said
    made = (
        x509.CertificateBuilder()
        .subject_name(said)
        .issuer_name(by)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + days[0] * DAY)
        .not_valid_after(NOW + days[1] * DAY)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(above.private.public_key()),
            critical=False,
        )
    )
    if authority:
        sign_only = x509.KeyUsage(
            False, False, False, False, False, True, True, False, False
        )  # fmt: skip
        made = made.add_extension(sign_only, critical=True)
        made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    else:
        made = made.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    return made.sign(above.private, hashes.SHA256())


def authority(name: str = "root") -> Key:
    """A key with its own certificate."""
    key = fresh()
    return Key(key.private, (certificate(name, key, authority=True),))


def issued(root: Key, **options: Any) -> Key:
    """A signer whose certificate the authority signed."""
    key = fresh()
    return Key(key.private, (certificate("signer", key, root, **options),))


def trusting(*roots: Key) -> Trust:
    """Trust in authorities alone."""
    return Trust({}, tuple(root.chain[0] for root in roots))


def certified(trusted: Callable[[Key], Sequence[Key]], **options: Any) -> Callable[[Stage], None]:
    """Signed with a certificate; which authorities are trusted, and how the leaf is made."""

    def tamper(stage: Stage) -> None:
        root = authority()
        seal(stage.folder, issued(root, **options))
        stage.trust = trusting(*trusted(root))

    return tamper


def by_a_leaf(stage: Stage) -> None:
    """Issued by somebody who has a certificate, but is no authority."""
    root = authority()
    middle = issued(root)
    leaf = issued(middle)
    seal(stage.folder, Key(leaf.private, (*leaf.chain, *middle.chain)))
    stage.trust = trusting(root)


def another_packs(stage: Stage) -> None:
    """A good signature, of something else."""
    other = make_pack(stage.base / "other" / "good", shape=(3, 12, 12))
    shutil.copy(other / SIGNATURE, stage.folder / SIGNATURE)


def hinted(stage: Stage) -> None:
    """Signed by a stranger who names the operator's key."""
    seal(stage.folder, fresh())
    bundle = stage.bundle()
    bundle["verificationMaterial"]["publicKey"]["hint"] = operator_key().id
    stage.signature(bundle)


def changed(change: Callable[[dict[str, Any]], object]) -> Callable[[Stage], None]:
    """The bundle, changed."""

    def tamper(stage: Stage) -> None:
        bundle = stage.bundle()
        change(bundle)
        stage.signature(bundle)

    return tamper


def restated(change: Callable[[dict[str, Any]], object]) -> Callable[[Stage], None]:
    """The statement changed, and signed by the operator."""

    def tamper(stage: Stage) -> None:
        digests = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in stage.folder.iterdir()
            if path.name != SIGNATURE
        }
        loads, dumps, key = json.loads, json.dumps, operator_key()
        made = loads(bundle_module.make("good", digests, key))
        envelope = made["dsseEnvelope"]
        statement = loads(_decoded(envelope["payload"]))
        change(statement)
        payload = dumps(statement).encode()
        envelope["payload"] = b64encode(payload).decode()
        signature = key.sign(bundle_module._pae(payload))
        envelope["signatures"][0]["sig"] = b64encode(signature).decode()
        stage.signature(made)

    return tamper


def _decoded(text: str) -> bytes:
    from base64 import b64decode

    return b64decode(text)


def other_list(stage: Stage) -> None:
    """The list replaced, the signature kept."""
    another = make_pack(stage.base / "other" / "good", shape=(3, 12, 12))
    theirs = json.loads((another / SIGNATURE).read_bytes())
    bundle = stage.bundle()
    bundle["dsseEnvelope"]["payload"] = theirs["dsseEnvelope"]["payload"]
    stage.signature(bundle)


def fixed_hashes(stage: Stage) -> None:
    """Who can write the folder makes all fit together, but cannot sign."""
    kept = (stage.folder / SIGNATURE).read_bytes()
    (stage.folder / "MODEL_CARD.md").write_text("It defends everything.\n")
    write_manifest(stage.folder, stage.manifest())
    (stage.folder / SIGNATURE).write_bytes(kept)


def older(stage: Stage) -> None:
    """A pack that was good once, put back."""
    stage.rewrite(serial=3)
    stage.min_serial = 4


def pinned(stage: Stage) -> None:
    """A shipped pack with a signature beside it."""
    shutil.rmtree(stage.folder)
    shutil.copytree(Path(__file__).parents[2] / "models" / "signs", stage.folder)
    (stage.folder / SIGNATURE).write_text("{}")


def written(data: bytes) -> Callable[[Stage], object]:
    """A signature word for word."""
    return lambda stage: (stage.folder / SIGNATURE).write_bytes(data)


def linked(stage: Stage) -> None:
    """The signature lies elsewhere."""
    (stage.folder / SIGNATURE).rename(stage.base / "elsewhere")
    (stage.folder / SIGNATURE).symlink_to(stage.base / "elsewhere")


def forget(stage: Stage) -> None:
    """The operator's key is trusted no longer."""
    stage.trust = Trust({})


def twice(stage: Stage) -> None:
    """A key of the bundle with two values, of which readers take one or the other."""
    text = (stage.folder / SIGNATURE).read_text()
    (stage.folder / SIGNATURE).write_text(text.replace("{", '{"mediaType": "other",', 1))


def _resources(statement: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = statement["predicate"]["resources"]
    return found


def _shorter(statement: dict[str, Any]) -> None:
    resources = _resources(statement)
    resources[:] = [one for one in resources if one["name"] != "golden.npz"]
    whole = hashlib.sha256(b"".join(bytes.fromhex(one["digest"]) for one in resources))
    statement["subject"][0]["digest"]["sha256"] = whole.hexdigest()


CASES = [
    Case("not signed", lambda s: (s.folder / SIGNATURE).unlink(), "nor signed (no model.sig)"),
    Case("another pack's signature", another_packs, "was altered"),
    Case("a key that is not trusted", lambda s: seal(s.folder, fresh()), "is not among the 1 key"),
    Case("a key that was trusted once", forget, "is not among the 0 keys trusted"),
    Case("a stranger in the operator's name", hinted, "is not a signature of key"),
    Case("nobody's name", changed(
        lambda b: b["verificationMaterial"]["publicKey"].update(hint="")), "is by key (none)"),
    Case("neither key nor certificate", changed(
        lambda b: b.update(verificationMaterial={})), "names neither a key nor a chain"),
    Case("an unknown authority", certified(lambda root: [authority("other")]), "which no author"),
    Case("no authority at all", certified(lambda root: []), "no authority is trusted here"),
    Case("an expired certificate", certified(lambda root: [root], days=(-9, -1)), "valid from"),
    Case("a certificate of tomorrow", certified(lambda root: [root], days=(1, 9)), "valid from"),
    Case("a server's certificate", certified(
        lambda root: [root], usage=SERVING), "which is not made for signing"),
    Case("a certificate by no authority", by_a_leaf, "which no authority trusted here issued"),
    Case("a chain of nothing", changed(lambda b: b.update(
        verificationMaterial={"x509CertificateChain": {"certificates": []}})), "no usable chain"),
    Case("a certificate of noise", changed(lambda b: b.update(verificationMaterial={
        "x509CertificateChain": {"certificates": [{"rawBytes": "AAAA"}]}})), "cannot be read"),
    Case("two signatures", changed(lambda b: b["dsseEnvelope"]["signatures"].append(
        b["dsseEnvelope"]["signatures"][0])), "holds 2 signatures"),
    Case("no signature inside", changed(
        lambda b: b["dsseEnvelope"].update(signatures=[])), "holds 0 signatures"),
    Case("another list under the signature", other_list, "is not a signature of key"),
    Case("another type of payload", changed(
        lambda b: b["dsseEnvelope"].update(payloadType="text/plain")), "its payload is"),
    Case("another kind of bundle", changed(lambda b: b.update(mediaType="v0.1")), "media type"),
    Case("another predicate", restated(
        lambda s: s.update(predicateType="other")), "not a model signature"),
    Case("shards instead of files", restated(
        lambda s: s["predicate"]["serialization"].update(method="shards")), "is over shards"),
    Case("a file that was not signed", restated(_shorter), "golden.npz is not among the files"),
    Case("a file signed twice", restated(
        lambda s: _resources(s).append(_resources(s)[0])), "lists a file twice"),
    Case("a weaker digest", restated(
        lambda s: _resources(s)[0].update(algorithm="md5")), "a digest is not SHA-256"),
    Case("a digest of another list", restated(
        lambda s: s["subject"][0]["digest"].update(sha256="0" * 64)), "not the one of its list"),
    Case("a key of the signature twice", twice, "'mediaType' appears twice"),
    Case("a signature of noise", written(b"\xff\x00"), "model.sig is malformed"),
    Case("an empty signature", written(b""), "model.sig is malformed"),
    Case("a signature of null", written(b"null"), "model.sig is malformed"),
    Case("a huge signature", written(b" " * (bundle_module.MAX_BYTES + 1)), "is larger than"),
    Case("a linked signature", linked, "model.sig is a link"),
    Case("hashes put right by who cannot sign", fixed_hashes, "MODEL_CARD.md was altered"),
    Case("an older pack put back", older, "serial 3, older than the 4"),
    Case("a shipped pack's name", lambda s: s.rewrite(name="signs"), "calls itself 'signs'"),
    Case("a signature beside a pin", pinned, "does not belong into a pinned pack"),
]  # fmt: skip
