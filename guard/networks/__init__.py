"""The classifiers that packs are made of: pixels in [0, 1] to logits.

Normalisation is the first layer, so that epsilon means what papers mean. Batch normalisation is
used in training only: `fuse` folds it into the convolutions, and the fused network is what is
exported, served, attacked and rebuilt by `load_member`.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from guard.networks.cost import flops, parameters
from guard.networks.fusion import Folded, fuse
from guard.networks.layers import (
    ACTIVATIONS,
    NORMS,
    ConvNorm,
    Normalize,
    PreActivation,
    Residual,
    Standardize,
)
from guard.networks.network import Frame, Network
from guard.networks.preact import preact
from guard.networks.resnet import resnet
from guard.networks.small import broad, plain, residual
from guard.networks.vision import vision
from guard.networks.vit import vit
from guard.networks.wide import wide

__all__ = [
    "ACTIVATIONS",
    "ARCHITECTURES",
    "NORMS",
    "ConvNorm",
    "Folded",
    "Network",
    "Normalize",
    "PreActivation",
    "Residual",
    "Standardize",
    "blueprint",
    "broad",
    "build",
    "flops",
    "fuse",
    "parameters",
    "plain",
    "preact",
    "residual",
    "resnet",
    "takes",
    "vision",
    "vit",
    "wide",
]

ARCHITECTURES: dict[str, Callable[..., Network]] = {
    "plain": plain,
    "residual": residual,
    "broad": broad,
    "resnet": resnet,
    "preact": preact,
    "wide": wide,
    "vit": vit,
    "torchvision": vision,
}

# Arguments that say where training starts; `load_member` must not need the file again.
_START = frozenset({"weights"})


def build(architecture: str, **arguments: Any) -> Network:
    """A fresh network by its name in the manifest; raises KeyError for an unknown name."""
    return ARCHITECTURES[architecture](**arguments)


def takes(architecture: str, argument: str) -> bool:
    """Whether the architecture has this argument, its own or its frame's; KeyError if unknown."""
    known = inspect.signature(ARCHITECTURES[architecture]).parameters
    framed = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in known.values())
    return argument in known or (framed and argument in Frame.__annotations__)


def blueprint(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that decide a network's shape, without those that fill it with weights."""
    return {name: value for name, value in arguments.items() if name not in _START}
