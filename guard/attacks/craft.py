"""What every attack does around its own idea: check, freeze the model, choose the layout."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, cast

import torch
from torch import Tensor, nn

from guard.attacks.goal import Classifier
from guard.errors import InputError

P = ParamSpec("P")
Attack = Callable[Concatenate[Classifier, Tensor, Tensor, P], Tensor]


def crafts(attack: Attack[P]) -> Attack[P]:
    """Turn the core of an attack into the attack: the promises of the package's docstring.

    Arguments are checked (InputError), an empty batch comes back, gradients are recorded only
    where the attack asks for them and never for the model's parameters, and images run in
    channels_last where the model can take it (1.3 to 1.8 times as fast on a CPU).
    """

    @functools.wraps(attack)
    def run(
        model: Classifier, images: Tensor, labels: Tensor, *args: P.args, **options: P.kwargs
    ) -> Tensor:
        check(images, labels)
        with torch.inference_mode(False), torch.no_grad(), frozen(model):
            images = images.clone() if images.is_inference() else images.detach()
            labels = labels.clone() if labels.is_inference() else labels
            if not len(images):
                return images.clone()
            found = attack(model, fastest(model, images), labels, *args, **options)
            return found.contiguous()

    return cast("Attack[P]", run)


def check(images: Tensor, labels: Tensor) -> None:
    """InputError unless images are floating (N, C, H, W) and labels whole numbers (N,)."""
    if images.ndim != 4 or not images.is_floating_point():
        shape = tuple(images.shape)
        raise InputError(f"images must be floating (N, C, H, W), not {images.dtype} {shape}")
    if labels.shape != images.shape[:1] or labels.is_floating_point():
        shape = tuple(labels.shape)
        raise InputError(f"labels must be {len(images)} whole numbers, not {labels.dtype} {shape}")


@contextmanager
def frozen(model: Classifier) -> Iterator[None]:
    """Within, no parameter of the model asks for gradients: half the backward pass saved."""
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    asked = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in asked:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asked:
            parameter.requires_grad_(True)


def fastest(model: Classifier, images: Tensor) -> Tensor:
    """The images in channels_last if the model convolves and takes them so, else as they are.

    Some models flatten with `view`, which other layouts than the plain one make impossible: they
    are found out by one forward pass on one image.
    """
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    if not isinstance(model, nn.Module):
        return images
    if not any(isinstance(module, nn.Conv2d) for module in model.modules()):
        return images
    packed = images.contiguous(memory_format=torch.channels_last)
    if packed is images:
        return images
    try:
        model(packed[:1])
    except RuntimeError:
        return images
    return packed
