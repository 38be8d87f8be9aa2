"""A pack: one folder with everything the gateway needs for one family of models.

Files are read once, checked against the manifest's SHA-256 and used from memory, so that what was
checked is what runs. Packs that ship with guard are pinned by digest in `shipped.json`. Loading
fails closed: a missing, altered, additional or linked file is a PackError.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from guard.errors import PackError

SCHEMA = 1
MANIFEST = "manifest.json"
REQUIRED = ("evidence.onnx", "detector.onnx", "calibration.npz", "golden.npz", "MODEL_CARD.md")
MAX_FILE = 64 * 2**20  # bytes
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

    @classmethod
    def load(cls, folder: str | Path, *, check_pin: bool = True) -> "Pack":
        """Read and verify a pack; raises PackError naming the file and what is wrong with it.

        check_pin False is for building a shipped pack anew, before its digest is pinned.
        """
        folder = Path(folder)
        raw = _read(folder, MANIFEST)
        manifest = _parse(folder, raw)
        digest = "sha256:" + hashlib.sha256(raw).hexdigest()
        files = {name: _verified(folder, name, entry) for name, entry in _entries(manifest)}
        missing = [name for name in REQUIRED if name not in files]
        if missing:
            raise PackError(f"{folder}: the manifest does not list {', '.join(missing)}")
        extra = {path.name for path in folder.iterdir()} - {MANIFEST, *files}
        if extra:
            raise PackError(f"{folder}: {sorted(extra)[0]} is not in the manifest")
        return cls(folder, manifest, files, digest, check_pin and _pinned(folder, manifest, digest))

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
    """Hash the folder's files into `manifest["files"]`, write it, return the pack's digest."""
    names = sorted(p.name for p in folder.iterdir() if p.name != MANIFEST)
    files = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        for name, data in ((name, (folder / name).read_bytes()) for name in names)
    }
    text = json.dumps({**manifest, "schema": SCHEMA, "files": files}, indent=1, sort_keys=True)
    raw = (text + "\n").encode()
    (folder / MANIFEST).write_bytes(raw)
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def shipped_digests() -> dict[str, str]:
    """Digest by name of the packs that ship with this version."""
    text = resources.files("guard").joinpath("shipped.json").read_text()
    return {str(name): str(digest) for name, digest in json.loads(text).items()}


def pin(folder: Path) -> str:
    """Record a pack's digest in this source tree's `shipped.json`; returns the digest."""
    pack = Pack.load(folder, check_pin=False)
    path = Path(str(resources.files("guard").joinpath("shipped.json")))
    digests = {**shipped_digests(), pack.name: pack.digest}
    path.write_text(json.dumps(digests, indent=1, sort_keys=True) + "\n")
    return pack.digest


def _read(folder: Path, name: str) -> bytes:
    path = folder / name
    if folder.is_symlink() or path.is_symlink():
        raise PackError(f"{path} is a link; packs are plain files in a plain folder")
    try:
        if path.stat().st_nlink > 1:
            raise PackError(f"{path} has several hard links; packs are plain files")
        if path.stat().st_size > MAX_FILE:
            raise PackError(f"{path} is larger than {MAX_FILE} bytes")
        return path.read_bytes()
    except OSError as error:
        raise PackError(f"{path} cannot be read: {error.strerror}") from error


def _parse(folder: Path, raw: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(raw)
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


def _verified(folder: Path, name: str, entry: Mapping[str, Any]) -> bytes:
    data = _read(folder, name)
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise PackError(f"{folder / name} was altered: its SHA-256 is not the manifest's")
    return data


def _pinned(folder: Path, manifest: Mapping[str, Any], digest: str) -> bool:
    expected = shipped_digests().get(str(manifest["name"]))
    if expected is not None and expected != digest:
        raise PackError(
            f"{folder} calls itself {manifest['name']!r}, a shipped pack, but is not the one this "
            "version of guard pins; build your own under another name"
        )
    return expected is not None
