"""A pack: one folder with everything the gateway needs for one family of models.

Files are read once, checked and used from memory, so that what was checked is what runs. Somebody
has to vouch for them: packs that ship with guard are pinned by digest in `shipped.json`, all others
are signed (`model.sig`) with a key that is trusted here. Loading fails closed: an unsigned,
altered, additional, missing or linked file is a PackError.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from guard.archive import check_archive
from guard.durable import write_whole
from guard.errors import PackError
from guard.onnxgate import check_graph
from guard.signing import bundle, strict
from guard.signing.bundle import SIGNATURE
from guard.signing.folder import read_folder
from guard.signing.keys import Key, operator_key
from guard.signing.trust import Trust

SCHEMA = 1
MANIFEST = "manifest.json"
REQUIRED = ("evidence.onnx", "detector.onnx", "calibration.npz", "golden.npz", "MODEL_CARD.md")
# Rows of evidence; the gate's report; in-toto provenance; CycloneDX bill of materials.
OPTIONAL = ("rows.npz", "gate.json", "provenance.json", "bom.cdx.json")
FILES = frozenset((MANIFEST, SIGNATURE, *REQUIRED, *OPTIONAL))
PINNED = "pinned by this version"
# What JSON of another form than expected raises.
UNUSABLE = (
    *(ValueError, KeyError, TypeError, IndexError),
    *(AttributeError, OverflowError, RecursionError),
)


@dataclass(frozen=True)
class Member:
    """One classifier of the ensemble, as the manifest lists it."""

    name: str
    role: str  # "robust" or "sentinel"
    about: Mapping[str, Any]  # architecture, arguments, parameters, measured numbers


@dataclass(frozen=True)
class Pack:
    """A verified pack in memory."""

    folder: Path
    manifest: Mapping[str, Any]
    files: Mapping[str, bytes]
    digest: str  # sha256 of the manifest, which holds the hashes of all else
    shipped: bool  # pinned by this version of guard
    signer: str = ""  # who vouches for it, in words; empty: nobody was asked for

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        trust: Trust | None = None,
        check_pin: bool = True,
        min_serial: int = 0,
    ) -> "Pack":
        """Read and verify a pack; raises PackError naming the file and what is wrong with it.

        trust: whose signatures count where the pack is not pinned; None: `$GUARD_HOME/trust`.
        min_serial: an older one of its line is refused. check_pin False is for building: nobody
        has to vouch for the files, they only have to fit together.
        """
        folder = Path(folder)
        files = read_folder(folder, FILES, MANIFEST)
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        digest = "sha256:" + digests[MANIFEST]
        shipped = check_pin and digest in shipped_digests().values()
        signer = _vouched(folder, files, digests, shipped, trust) if check_pin else ""
        manifest = _parse(folder, files[MANIFEST])
        _fit(folder, manifest, digests)
        if check_pin and not shipped:
            _no_impostor(folder, manifest)
        held = {name: files[name] for name, _ in _entries(manifest)}
        _check_contents(folder, held)
        pack = cls(folder, manifest, held, digest, shipped, signer)
        if pack.serial < min_serial:
            raise PackError(
                f"{folder}: {pack.name} has serial {pack.serial}, older than the {min_serial} "
                "that is allowed here"
            )
        return pack

    @property
    def serial(self) -> int:
        """Counts the packs of one line; a pack that was not retrained has 0."""
        return int(self.manifest.get("serial", 0))

    @property
    def parent(self) -> str:
        """The digest of the pack that it was retrained from; empty: of none."""
        return str(self.manifest.get("parent") or "")

    @property
    def lineage(self) -> tuple[str, ...]:
        """Digests of all packs before it that have the same evidence graph, newest last."""
        return tuple(self.manifest.get("lineage", ()))

    @property
    def name(self) -> str:
        """The name that the manifest gives it."""
        return str(self.manifest["name"])

    @property
    def classes(self) -> tuple[str, ...]:
        """The K class names, in the order of the outputs."""
        return tuple(self.manifest["classes"])

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.manifest["input"]["shape"]
        return int(channels), int(height), int(width)

    @property
    def columns(self) -> tuple[str, ...]:
        """The E names of the evidence row."""
        return tuple(self.manifest["evidence"]["columns"])

    @property
    def members(self) -> tuple[Member, ...]:
        """The ensemble's members, robust ones first."""
        return tuple(Member(m["name"], m["role"], m) for m in self.manifest["members"])

    @property
    def noise_copies(self) -> int:
        """S, the noisy copies that consistency asks about."""
        return int(self.manifest["evidence"]["noise_copies"])

    def score_names(self, *, upstream: bool) -> tuple[str, ...]:
        """The D names of the scores, the detector's last."""
        return tuple(self.manifest["scores"]["upstream" if upstream else "alone"])


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> str:
    """Hash the folder's files into `manifest["files"]`, write it, return the pack's digest.

    A signature that was there goes: it was one of something else.
    """
    (folder / SIGNATURE).unlink(missing_ok=True)
    names = sorted(p.name for p in folder.iterdir() if p.name != MANIFEST)
    files = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        for name, data in ((name, (folder / name).read_bytes()) for name in names)
    }
    text = json.dumps({**manifest, "schema": SCHEMA, "files": files}, indent=1, sort_keys=True)
    raw = (text + "\n").encode()
    (folder / MANIFEST).write_bytes(raw)
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def sign_pack(folder: Path, key: Key | None = None) -> Pack:
    """Vouch for a pack that fits together; key None: the operator's own. Returns the pack.

    Signed are the bytes that were checked. Raises PackError where they do not fit together.
    """
    pack = Pack.load(folder, check_pin=False)
    _no_impostor(folder, pack.manifest)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in pack.files.items()}
    digests[MANIFEST] = pack.digest.removeprefix("sha256:")
    signature = bundle.make(pack.name, digests, key or operator_key())
    write_whole(folder / SIGNATURE, signature)
    (folder / SIGNATURE).chmod(0o644)  # whoever serves it has to read it
    return pack


def shipped_digests() -> dict[str, str]:
    """Digest by name of the packs that ship with this version."""
    text = resources.files("guard").joinpath("shipped.json").read_text()
    return {str(name): str(digest) for name, digest in json.loads(text).items()}


def pin(folder: Path) -> str:
    """Record a pack's digest in this source tree's `shipped.json`; returns the digest."""
    pack = Pack.load(folder, check_pin=False)
    path = Path(str(resources.files("guard").joinpath("shipped.json")))
    (folder / SIGNATURE).unlink(missing_ok=True)  # the pin takes its place
    digests = {**shipped_digests(), pack.name: pack.digest}
    path.write_text(json.dumps(digests, indent=1, sort_keys=True) + "\n")
    return pack.digest


def _vouched(
    folder: Path,
    files: Mapping[str, bytes],
    digests: Mapping[str, str],
    shipped: bool,
    trust: Trust | None,
) -> str:
    """Who vouches for the bytes of these files, all of them. Nothing in them is looked at yet."""
    if shipped and SIGNATURE in files:
        raise PackError(f"{folder}: {SIGNATURE} does not belong into a pinned pack")
    if shipped:
        return PINNED
    if SIGNATURE not in files:
        raise PackError(
            f"{folder} is neither pinned by this version of guard nor signed (no {SIGNATURE}): "
            "where you trust it, `guard pack sign`"
        )
    others = {name: digest for name, digest in digests.items() if name != SIGNATURE}
    try:
        return bundle.check(files[SIGNATURE], others, trust or Trust.default())
    except PackError as error:
        raise PackError(f"{folder}: {error}") from error


def _parse(folder: Path, raw: bytes) -> dict[str, Any]:
    try:
        manifest = strict.parse(raw)
        if manifest["schema"] != SCHEMA:
            raise PackError(f"{folder}: manifest schema {manifest['schema']!r}, not {SCHEMA}")
        _check(manifest)
    except UNUSABLE as error:
        text = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise PackError(f"{folder}: {MANIFEST} is malformed: {text}") from error
    return dict(manifest)


def _check(manifest: Mapping[str, Any]) -> None:
    _plain_name(manifest["name"])
    classes = manifest["classes"]
    if not isinstance(classes, list) or len(set(map(str, classes))) != len(classes) or not classes:
        raise ValueError("classes must be a list of different names")
    shape = manifest["input"]["shape"]
    if len(shape) != 3 or not all(isinstance(n, int) and 0 < n <= 4096 for n in shape):
        raise ValueError(f"input shape {shape} is not [C, H, W]")
    for part in (
        manifest["evidence"]["columns"],
        manifest["scores"]["alone"],
        manifest["scores"]["upstream"],
    ):
        if not part or len(set(part)) != len(part):
            raise ValueError("column names must be different")
    roles = [member["role"] for member in manifest["members"] if _plain_name(member["name"])]
    if not {"robust"} <= set(roles) <= {"robust", "sentinel"}:
        raise ValueError("members need the role robust or sentinel, and at least one is robust")
    if int(manifest["evidence"]["noise_copies"]) < 0:
        raise ValueError("noise_copies is negative")
    serial = manifest.get("serial", 0)
    if type(serial) is not int or not 0 <= serial < 1 << 31:
        raise ValueError(f"serial {serial!r} is no number of 0 or more")
    parents = [manifest.get("parent"), *manifest.get("lineage", ())]
    if not all(one is None or _is_digest(one) for one in parents):
        raise ValueError("parent and lineage must be digests, sha256:...")


def _is_digest(value: object) -> bool:
    digits = value.removeprefix("sha256:") if isinstance(value, str) else ""
    return len(digits) == 64 and set(digits) <= set("0123456789abcdef") and value != digits


def _plain_name(name: object) -> bool:
    text = name if isinstance(name, str) else ""
    if (
        not text
        or len(text) > 64
        or not set(text) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")
        or text.startswith(".")
    ):
        raise ValueError(f"{name!r} is not a plain name")
    return True


def _entries(manifest: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    try:
        entries = [(str(name), entry) for name, entry in manifest["files"].items()]
        for name, entry in entries:
            _plain_name(name)
            if not isinstance(entry["sha256"], str):
                raise TypeError(f"{name} has no hash")
    except UNUSABLE as error:
        raise PackError(f"{MANIFEST} is malformed: {error}") from error
    return entries


def _fit(folder: Path, manifest: Mapping[str, Any], digests: Mapping[str, str]) -> None:
    """The files are those of the manifest, no more and no fewer."""
    listed = dict(_entries(manifest))
    missing = [name for name in REQUIRED if name not in listed]
    if missing:
        raise PackError(f"{folder}: the manifest does not list {', '.join(missing)}")
    for name, entry in listed.items():
        if name not in digests:
            raise PackError(f"{folder / name} cannot be read: No such file or directory")
        if digests[name] != entry["sha256"]:
            raise PackError(f"{folder / name} was altered: its SHA-256 is not the manifest's")
    extra = sorted(set(digests) - {MANIFEST, SIGNATURE, *listed})
    if extra:
        raise PackError(f"{folder}: {extra[0]} is not in the manifest")


def _check_contents(folder: Path, files: Mapping[str, bytes]) -> None:
    """Each kind of file holds what it may, before anything else reads it."""
    for name, data in files.items():
        if name.endswith(".onnx"):
            check_graph(data, str(folder / name))
        elif name.endswith(".npz"):
            check_archive(data, str(folder / name))
        elif name.endswith(".json"):
            try:
                strict.parse(data)
            except ValueError as error:
                raise PackError(f"{folder / name} is malformed: {error}") from error


def _no_impostor(folder: Path, manifest: Mapping[str, Any]) -> None:
    if str(manifest["name"]) in shipped_digests():
        raise PackError(
            f"{folder} calls itself {manifest['name']!r}, a shipped pack, but is not the one this "
            "version of guard pins; build your own under another name"
        )
