"""Torch modules rebuilt from a pack: the initialisers of its ONNX files are the only copy.

The names of the initialisers are those of the modules' state; the manifest says how to build them.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from guard.defenses.detector import Detector
from guard.defenses.evidence import EvidenceGraph
from guard.errors import PackError
from guard.pack import Pack

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def load_member(pack: str | Path | Pack, name: str) -> nn.Module:
    """One member of a pack, in eval mode: pixels (N, C, H, W) in [0, 1] to logits (N, K).

    Raises PackError when the pack cannot be trusted or has no such member.
    """
    members = load_evidence(pack).members
    if name not in members:
        raise PackError(f"no member {name!r}; the pack has {', '.join(members)}")
    return members[name]


def load_evidence(pack: str | Path | Pack) -> EvidenceGraph:
    """The served graph as a differentiable module, in eval mode.

    Called with images (N, C, H, W) in [0, 1] and standard normal noise (N, S, C, H, W) it returns
    evidence (N, E) and the robust ensemble's probabilities (N, K). Raises PackError.
    """
    pack = pack if isinstance(pack, Pack) else Pack.load(pack)
    return _filled(EvidenceGraph.from_spec, pack, "evidence.onnx")


def load_detector(pack: str | Path | Pack) -> Detector:
    """The pack's detector, in eval mode. Raises PackError."""
    pack = pack if isinstance(pack, Pack) else Pack.load(pack)
    return _filled(Detector.from_spec, pack, "detector.onnx")


def weights(module: nn.Module) -> dict[str, Tensor]:
    """The state that decides what a module answers: all but the counters of batch norms."""
    state = module.state_dict()
    return {name: x for name, x in state.items() if not name.endswith("num_batches_tracked")}


def initializers(model: bytes) -> dict[str, Tensor]:
    """All weights and constants of an ONNX file, by name, as fresh tensors.

    What is stored in half precision comes as float32, as it does inside the graph.
    """
    graph = onnx.load_model_from_string(model).graph
    found = {x.name: torch.from_numpy(numpy_helper.to_array(x).copy()) for x in graph.initializer}
    return {name: x.float() if x.dtype == torch.float16 else x for name, x in found.items()}


@torch.no_grad()
def fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Set all of the module's weights from tensors of the same names.

    Raises PackError when one is missing or does not fit; more than needed is fine.
    """
    state = weights(module)
    for name, value in state.items():
        if name not in tensors:
            raise PackError(f"the ONNX file holds no {name}")
        if tensors[name].shape != value.shape or tensors[name].dtype != value.dtype:
            there, here = list(tensors[name].shape), list(value.shape)
            raise PackError(f"the ONNX file does not fit its manifest: {name} {there}, not {here}")
    for name, value in state.items():
        value.copy_(tensors[name])


def _filled(build: Callable[[Mapping[str, Any]], ModuleT], pack: Pack, file: str) -> ModuleT:
    try:
        module = build(pack.manifest)
    except (KeyError, TypeError, ValueError) as error:
        raise PackError(f"{pack.folder}: the manifest describes no graph: {error}") from error
    fill(module, initializers(pack.files[file]))
    return module
