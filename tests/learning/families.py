"""Attacks that the shipped detectors were never shown; made on the production model alone.

Each takes (network, images (N, C, H, W) in [0, 1], labels (N,), generator) and returns images.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample

from guard.attacks.square import square
from guard.evaluation.detection import Attack


def margin(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """How far the true class is ahead (N,); below 0 the picture fools."""
    logits = network(images)
    own = logits.gather(1, labels[:, None])[:, 0]
    return own - logits.scatter(1, labels[:, None], -1e9).amax(1)


@torch.no_grad()
def spatial(
    network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator
) -> Tensor:
    """Turned by up to 30 degrees and shifted by up to an eighth; the worst of 40 draws.

    Engstrom et al., "Exploring the Landscape of Spatial Robustness", ICML 2019.
    """
    worst, least = images.clone(), margin(network, images, labels)
    for _ in range(40):
        angle = math.radians(30) * _signed(generator, len(images))
        shift = 0.25 * _signed(generator, len(images), 2)
        first = torch.stack([angle.cos(), -angle.sin(), shift[:, 0]], 1)
        second = torch.stack([angle.sin(), angle.cos(), shift[:, 1]], 1)
        grid = affine_grid(torch.stack([first, second], 1), list(images.shape), False)
        moved = grid_sample(images, grid, padding_mode="border", align_corners=False)
        worst, least = _worse(network, labels, moved, worst, least)
    return worst


def sticker(
    network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator
) -> Tensor:
    """A square of a quarter of the edge, anywhere but at the border, any colours, 30 steps.

    Brown et al., "Adversarial Patch", 2017; here one for every picture.
    """
    edge = images.shape[-1]
    size, rim = edge // 4, edge // 8
    at = torch.randint(rim, edge - rim - size, (len(images), 2), generator=generator)
    line = torch.arange(edge)
    inside = [(line >= a[:, None]) & (line < a[:, None] + size) for a in (at[:, 0], at[:, 1])]
    mask = (inside[0][:, :, None] & inside[1][:, None, :])[:, None].float()
    print_ = torch.rand(images.shape, generator=generator)
    for _ in range(30):
        print_.requires_grad_(True)
        loss = margin(network, images * (1 - mask) + print_ * mask, labels).sum()
        (slope,) = torch.autograd.grad(loss, print_)
        print_ = (print_.detach() - 0.1 * slope.sign()).clamp(0, 1)
    return images * (1 - mask) + print_ * mask


def low_frequency(
    network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator
) -> Tensor:
    """The lowest 5x5 cosine waves of each channel, within 16/255, 40 steps.

    Guo, Frank & Weinberger, "Low Frequency Adversarial Perturbation", UAI 2019.
    """
    eps, waves = 16 / 255, _waves(images.shape[-1])[:5]
    size = (len(images), images.shape[1], 5, 5)
    weights = 2 * eps * torch.randn(size, generator=generator)

    def moved(weights: Tensor) -> Tensor:
        return (images + (waves.T @ weights @ waves).clamp(-eps, eps)).clamp(0, 1)

    for _ in range(40):
        weights.requires_grad_(True)
        loss = margin(network, moved(weights), labels).sum()
        (slope,) = torch.autograd.grad(loss, weights)
        length = slope.flatten(1).norm(dim=1).clamp_min(1e-9)[:, None, None, None]
        weights = weights.detach() - 2.5 * eps * slope / length
    return moved(weights).detach()


@torch.no_grad()
def colour(
    network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator
) -> Tensor:
    """Every channel scaled by 0.4 to 1.6 and lifted by up to 0.3; the worst of 60 draws.

    After Hosseini & Poovendran, "Semantic Adversarial Examples", CVPRW 2018.
    """
    worst, least = images.clone(), margin(network, images, labels)
    channels = images.shape[1]
    for _ in range(60):
        scale = 1 + 0.6 * _signed(generator, len(images), channels, 1, 1)
        lift = 0.3 * _signed(generator, len(images), channels, 1, 1)
        moved = (images * scale + lift).clamp(0, 1)
        worst, least = _worse(network, labels, moved, worst, least)
    return worst


@torch.no_grad()
def few_pixels(
    network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator
) -> Tensor:
    """Single pixels set to a corner of the colour cube where that helps, 150 tries.

    A random search after Croce et al., "Sparse-RS", AAAI 2022.
    """
    worst, least = images.clone(), margin(network, images, labels)
    everybody = torch.arange(len(images))
    for _ in range(150):
        at = torch.randint(0, images.shape[-1], (len(images), 2), generator=generator)
        ink = (torch.rand((len(images), images.shape[1]), generator=generator) > 0.5).float()
        moved = worst.clone()
        moved[everybody, :, at[:, 0], at[:, 1]] = ink
        worst, least = _worse(network, labels, moved, worst, least)
    return worst


def few_squares(
    network: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator
) -> Tensor:
    """Square (Andriushchenko et al. 2020), L-inf 8/255, 300 queries."""
    return square(network, images, labels, eps=8 / 255, queries=300, generator=generator)


FAMILIES: Mapping[str, Attack] = {
    "spatial": spatial,
    "sticker": sticker,
    "low-frequency": low_frequency,
    "colour": colour,
    "few pixels": few_pixels,
    "square": few_squares,
}


def _signed(generator: torch.Generator, *size: int) -> Tensor:
    return 2 * torch.rand(size, generator=generator) - 1


def _worse(
    network: nn.Module, labels: Tensor, moved: Tensor, worst: Tensor, least: Tensor
) -> tuple[Tensor, Tensor]:
    """Keep the pictures that are closer to fooling."""
    found = margin(network, moved, labels)
    better = found < least
    kept = torch.where(better[:, None, None, None], moved, worst)
    return kept, torch.where(better, found, least)


def _waves(size: int) -> Tensor:
    """The orthonormal cosine transform of `size` points."""
    wave, place = torch.arange(size)[:, None].float(), torch.arange(size)[None].float()
    found = torch.cos(math.pi * (place + 0.5) * wave / size) * math.sqrt(2 / size)
    found[0] /= math.sqrt(2)
    return found
