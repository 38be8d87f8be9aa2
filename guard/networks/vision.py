"""torchvision's classifiers for large pictures, from scratch or from a checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from guard.errors import InputError
from guard.networks.network import Network

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet, pixels in [0, 1]
WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")  # which are left out


def vision(
    *,
    model: str,
    classes: int,
    weights: str | Path | None = None,
    channels: int = 3,
    mean: float | Sequence[float] = MEAN,
    std: float | Sequence[float] = STD,
    dropout: float = 0.0,
) -> Network:
    """torchvision's classification `model` ("resnet18", "vit_b_16", ...), normalisation inside.

    `weights` is the path of its state (.safetensors, or .pth as torchvision publishes them); a
    head for another number of classes is replaced by a fresh one. Raises ValueError for a model
    that is unknown or does not end in a linear layer, InputError for a checkpoint that cannot be
    read or does not fit.
    """
    if channels != 3:
        raise ValueError(f"torchvision's models take 3 channels, not {channels}")
    trunk, name, head = _trunk(model, classes)
    if weights is not None:
        _load(trunk, name, Path(weights))
    trunk.set_submodule(name, nn.Identity())
    network = Network(
        trunk, head.in_features, classes, mean=mean, std=std, dropout=dropout, normalize="standard"
    )
    network.pool, network.head = nn.Identity(), head  # the trunk has pooled already
    return network


def _trunk(model: str, classes: int) -> tuple[nn.Module, str, nn.Linear]:
    """The model, the name of its last layer, that layer."""
    from torchvision import models  # slow to import, and only needed here

    if model not in models.list_models(module=models):
        raise ValueError(f"torchvision has no classification model {model!r}")
    options: dict[str, Any] = {"weights": None, "num_classes": classes}
    if model in WITH_AUXILIARY_HEADS:
        options |= {"aux_logits": False, "init_weights": False}
    trunk = models.get_model(model, **options)
    linear = [item for item in trunk.named_modules() if isinstance(item[1], nn.Linear)]
    if not linear or linear[-1][1].out_features != classes:
        raise ValueError(f"{model} does not end in a linear layer")
    name, head = linear[-1]
    return trunk, name, head


def _load(trunk: nn.Module, head: str, path: Path) -> None:
    """Fill the model; its head stays as it is when the checkpoint's has other classes."""
    own = {f"{head}.{name}": value for name, value in trunk.get_submodule(head).named_parameters()}
    state = {key: x for key, x in _read(path).items() if not key.lower().startswith("aux")}
    if any(key not in state or state[key].shape != value.shape for key, value in own.items()):
        state |= own
    try:
        trunk.load_state_dict(state)
    except (RuntimeError, AttributeError) as error:
        raise InputError(f"{path} does not fit the model: {_line(error)}") from error


def _read(path: Path) -> dict[str, Tensor]:
    """A state by name; nothing in the file is executed."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers' errors share no base class
        raise InputError(f"{path} cannot be read as weights: {_line(error)}") from error
    if not isinstance(state, dict) or not all(isinstance(x, Tensor) for x in state.values()):
        raise InputError(f"{path} holds no weights by name")
    return dict(state)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
