"""What is signed: a list of names and SHA-256 digests, in the OpenSSF model-signing format (OMS).

A sigstore bundle v0.3 around a DSSE envelope around an in-toto statement whose predicate lists
every file. Made and read here without the model-signing library; each reads what the other wrote.
Sources: github.com/ossf/model-signing-spec, github.com/secure-systems-lab/dsse (protocol v1).
"""

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

from guard.errors import PackError
from guard.signing.keys import Key
from guard.signing.strict import parse
from guard.signing.trust import Trust

SIGNATURE = "model.sig"
MAX_BYTES = 1 << 18
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://model_signing/signature/v1.0"
# What the library leaves out when it looks at the folder. Here nothing is left out.
IGNORED = [SIGNATURE, ".git", ".gitattributes", ".github", ".gitignore"]


def make(name: str, digests: Mapping[str, str], key: Key) -> bytes:
    """A bundle over files; digests: SHA-256 in hexadecimal by file name."""
    statement = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": _root(digests)}}],
        "predicateType": PREDICATE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": IGNORED,
            },
            "resources": [
                {"name": file, "algorithm": "sha256", "digest": digest}
                for file, digest in sorted(digests.items())
            ],
        },
    }
    payload = json.dumps(statement, separators=(",", ":")).encode()
    envelope = {
        "payload": b64encode(payload).decode(),
        "payloadType": PAYLOAD,
        "signatures": [{"sig": b64encode(key.sign(_pae(payload))).decode(), "keyid": ""}],
    }
    bundle = {
        "mediaType": BUNDLE,
        "verificationMaterial": key.material(),
        "dsseEnvelope": envelope,
    }
    return (json.dumps(bundle, indent=1) + "\n").encode()


def check(bundle: bytes, digests: Mapping[str, str], trust: Trust) -> str:
    """Who signed exactly these files, in words; PackError that says what is wrong.

    The signature is checked before anything of what was signed is read.
    """
    try:
        found = parse(bundle, limit=MAX_BYTES)
        if found["mediaType"] != BUNDLE:
            raise ValueError(f"its media type is {found['mediaType']!r}")
        material, payload, signature = _opened(found)
        who = trust.check(material, signature, _pae(payload))
        signed = _signed(parse(payload, limit=MAX_BYTES))
    except PackError as error:
        raise PackError(f"{SIGNATURE} {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        text = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise PackError(f"{SIGNATURE} is malformed: {text}") from error
    _compare(signed, digests, who)
    return who


def _opened(bundle: Mapping[str, Any]) -> tuple[Mapping[str, Any], bytes, bytes]:
    envelope = bundle["dsseEnvelope"]
    if envelope["payloadType"] != PAYLOAD:
        raise ValueError(f"its payload is {envelope['payloadType']!r}")
    signatures = envelope["signatures"]
    if len(signatures) != 1:
        raise ValueError(f"it holds {len(signatures)} signatures, not one")
    payload = b64decode(envelope["payload"], validate=True)
    signature = b64decode(signatures[0]["sig"], validate=True)
    return dict(bundle["verificationMaterial"]), payload, signature


def _signed(statement: Mapping[str, Any]) -> dict[str, str]:
    """The digests by name that a statement vouches for."""
    if (statement["_type"], statement["predicateType"]) != (STATEMENT, PREDICATE):
        raise ValueError("its statement is not a model signature v1.0")
    predicate, subjects = statement["predicate"], statement["subject"]
    form = predicate["serialization"]
    if (form["method"], form["hash_type"]) != ("files", "sha256"):
        raise ValueError(f"it is over {form['method']} in {form['hash_type']}")
    resources = predicate["resources"]
    found = {str(one["name"]): str(one["digest"]) for one in resources}
    if len(found) != len(resources):
        raise ValueError("it lists a file twice")
    if any(one["algorithm"] != "sha256" for one in resources):
        raise ValueError("a digest is not SHA-256")
    if len(subjects) != 1 or subjects[0]["digest"]["sha256"] != _root(found):
        raise ValueError("its digest is not the one of its list")
    return found


def _compare(signed: Mapping[str, str], digests: Mapping[str, str], who: str) -> None:
    for name in sorted({*signed, *digests}):
        if name not in digests:
            raise PackError(f"{name} is missing, which {who} signed")
        if name not in signed:
            raise PackError(f"{name} is not among the files that {who} signed")
        if signed[name] != digests[name]:
            raise PackError(f"{name} was altered: it is not what {who} signed")


def _root(digests: Mapping[str, str]) -> str:
    return hashlib.sha256(b"".join(bytes.fromhex(digests[n]) for n in sorted(digests))).hexdigest()


def _pae(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD), PAYLOAD.encode(), len(payload), payload)
