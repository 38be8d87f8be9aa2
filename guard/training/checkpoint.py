"""Training states and finished classifiers on disk: safetensors, nothing is ever unpickled.

A write goes to a temporary file, is flushed to the disk and then renamed, so that a kill at any
moment leaves the old checkpoint or the new one.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from guard.errors import InputError

WEIGHTS, RECIPE, STATE = "weights.safetensors", "recipe.json", "checkpoint.safetensors"


def save(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors and a JSON-able description as one file; InputError where it cannot be."""
    part = path.with_suffix(".part")
    held = {name: _packed(value) for name, value in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(held, part, metadata={"about": json.dumps(dict(about))})
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be written ({str(error).splitlines()[0]})") from error


def _packed(value: Tensor) -> Tensor:
    """A copy on the CPU, row by row: safetensors knows no other order and no shared memory."""
    return value.detach().cpu().clone(memory_format=torch.contiguous_format)


def fingerprint(*tensors: Tensor) -> str:
    """A short digest of tensors' bytes: whether two trainings see the same pictures."""
    found = hashlib.blake2b(digest_size=16)
    for value in tensors:
        found.update(_packed(value).numpy().data)
    return found.hexdigest()


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the description; InputError when the file is damaged or not one of ours."""
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} is not a whole checkpoint ({reason}): delete it") from error


def flatten(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict's tensors under a prefix."""
    return {f"{prefix}/{name}": value for name, value in state.items()}


def unflatten(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `flatten` put under the prefix."""
    start = f"{prefix}/"
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def pack_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's tensors (momenta, step counts) by parameter number."""
    state = optimizer.state_dict()["state"]
    return {
        f"{number}.{name}": value
        for number, values in state.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser back what `pack_optimizer` took."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def save_classifier(
    folder: Path, network: torch.nn.Module, recipe: Any, *, classes: int, about: Mapping[str, Any]
) -> None:
    """A finished classifier: `weights.safetensors` and `recipe.json`, the recipe written last."""
    save(folder / WEIGHTS, network.state_dict(), {"classes": classes})
    text = json.dumps({"recipe": asdict(recipe), "classes": classes, "about": dict(about)})
    part = folder / "recipe.part"
    part.write_text(text)
    part.replace(folder / RECIPE)


def described(folder: Path) -> dict[str, Any] | None:
    """What `recipe.json` says, or None where no classifier is finished."""
    try:
        found = json.loads((folder / RECIPE).read_text())
    except (OSError, ValueError):
        return None
    whole = isinstance(found, dict) and {"recipe", "classes", "about"} <= found.keys()
    return found if whole and (folder / WEIGHTS).exists() else None
