"""The targets by name: where each is, and its share of a run over all of them."""

import importlib
from collections.abc import Mapping
from typing import NamedTuple

from tests.fuzz.target import Target


class Place(NamedTuple):
    """A target's module and class, imported when it is used, and its weight."""

    module: str
    kind: str
    weight: float
    about: str


TARGETS: Mapping[str, Place] = {
    "wire": Place("wire", "Wire", 24, "ModelInfer requests as bytes, through the servicer"),
    "calls": Place("wire", "Calls", 10, "the other calls of both services"),
    "suspects": Place("suspects", "Suspects", 1, "the calls about suspects, over a real store"),
    "tensors": Place("tensors", "Tensors", 24, "tensors of a request: check, read, pixels"),
    "replies": Place("tensors", "Replies", 14, "what an upstream answers: read, mask, substitute"),
    "complaints": Place(
        "tensors", "Complaints", 5, "an upstream's error texts, as clients get them"
    ),
    "pictures": Place("pictures", "Pictures", 14, "PNG, JPEG, WebP, BMP and PPM files"),
    "jwt": Place("tokens", "Headers", 10, "`authorization` headers"),
    "keys": Place("tokens", "KeyFiles", 5, "files of public keys: JWKS, PEM"),
    "names": Place("tokens", "Names", 6, "names in certificates"),
    "config": Place("settings", "Settings", 6, "`guard.toml`"),
    "policy": Place("settings", "Policies", 4, "any numbers under any policy"),
    "npz": Place("settings", "Calibrations", 6, "calibration files"),
    "manifest": Place("packs", "Manifests", 6, "a pack's manifest"),
    "pack": Place("packs", "PackFiles", 0.3, "a pack's other files, their hashes put right"),
    "onnx": Place("packs", "Graphs", 1, "ONNX files"),
    "audit": Place("stored", "Logs", 2, "an audit log and its checkpoints"),
    "audit-keys": Place("stored", "AuditKeys", 2, "an audit log's keys"),
    "records": Place("sealed", "Records", 2, "sealed records of suspects, and their insides"),
    "rings": Place("sealed", "Rings", 1, "the keys of suspects"),
    "http": Place("served", "Http", 2, "bytes on the page port"),
    "loopback": Place("served", "Loopback", 1, "ModelInfer over a real connection"),
    "parquet": Place("stored", "ImageSets", 1, "image sets in Parquet"),
}


def make(name: str) -> Target:
    """The target of this name, ready to run."""
    place = TARGETS[name]
    module = importlib.import_module(f"tests.fuzz.targets.{place.module}")
    target: Target = getattr(module, place.kind)()
    return target
