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
    "pictures": Place("pictures", "Pictures", 12, "PNG, JPEG, WebP, BMP and PPM files"),
}


def make(name: str) -> Target:
    """The target of this name, ready to run."""
    place = TARGETS[name]
    module = importlib.import_module(f"tests.fuzz.targets.{place.module}")
    target: Target = getattr(module, place.kind)()
    return target
