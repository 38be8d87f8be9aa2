"""The targets by name: where each is, and its share of a run over all of them."""

import importlib
from collections.abc import Mapping
from typing import NamedTuple

from tests.fuzz.target import Target


class Place(NamedTuple):
    """A target's module and class, imported when it is used, and its weight."""

    module: str
    kind: str
    weight: int
    about: str


TARGETS: Mapping[str, Place] = {
    "wire": Place("wire", "Wire", 20, "ModelInfer requests as bytes, through the servicer"),
    "calls": Place("wire", "Calls", 8, "the other calls of both services"),
    "tensors": Place("tensors", "Tensors", 20, "tensors of a request: check, read, pixels"),
    "replies": Place("tensors", "Replies", 12, "what an upstream answers: read, mask, substitute"),
    "complaints": Place(
        "tensors", "Complaints", 5, "an upstream's error texts, as clients get them"
    ),
    "pictures": Place("pictures", "Pictures", 12, "PNG, JPEG, WebP, BMP and PPM files"),
    "jwt": Place("tokens", "Headers", 8, "`authorization` headers"),
    "keys": Place("tokens", "KeyFiles", 4, "files of public keys: JWKS, PEM"),
    "names": Place("tokens", "Names", 4, "names in certificates"),
    "config": Place("settings", "Settings", 8, "`guard.toml`"),
    "policy": Place("settings", "Policies", 6, "any numbers under any policy"),
    "npz": Place("settings", "Calibrations", 6, "calibration files"),
    "manifest": Place("packs", "Manifests", 5, "a pack's manifest"),
    "pack": Place("packs", "PackFiles", 1, "a pack's other files, their hashes put right"),
    "onnx": Place("packs", "Graphs", 1, "ONNX files"),
    "audit": Place("stored", "Logs", 6, "an audit log and its checkpoints"),
    "audit-keys": Place("stored", "AuditKeys", 3, "an audit log's keys"),
    "http": Place("served", "Http", 5, "bytes on the page port"),
    "loopback": Place("served", "Loopback", 2, "ModelInfer over a real connection"),
    "parquet": Place("stored", "ImageSets", 3, "image sets in Parquet"),
}


def make(name: str) -> Target:
    """The target of this name, ready to run."""
    place = TARGETS[name]
    module = importlib.import_module(f"tests.fuzz.targets.{place.module}")
    target: Target = getattr(module, place.kind)()
    return target
