"""Trains one classifier: adversarially in a single step (N-FGSM), or naturally.

Measured (GTSRB, 2 cores, see models/gtsrb/MODEL_CARD.md): the lead's recipe below.
N-FGSM (de Jorge et al. 2022): start from uniform noise of twice eps, take one signed-gradient step
of length eps, do not clip back into the eps-ball. Single-step training can collapse; a PGD-10
canary on held-out images watches every epoch and the last good weights are restored.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from guard.errors import InputError
from guard.networks import Network, build

Log = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the outcome, apart from the pictures. Pixels are in [0, 1]."""

    architecture: str
    width: int
    activation: str = "relu"
    grid: int = 1
    channels: int = 3
    method: Literal["nfgsm", "natural"] = "nfgsm"
    eps: float = 8 / 255  # L-inf
    spread: float = 2.0  # uniform noise before the step, in eps
    warm: float = 0.3  # share of training over which eps climbs from 0
    clean_weight: float = 0.0  # share of the loss on the unperturbed images
    epochs: int = 30
    batch: int = 128
    peak_rate: float = 0.2
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    ema: float = 0.995
    rotation: float = 10.0  # degrees, each way
    zoom: float = 0.1
    shift: float = 0.1  # of the width
    light: float = 0.3  # brightness and contrast, each way
    noise: float = 0.0  # largest standard deviation of Gaussian noise added
    bf16: bool = True
    seed: int = 0

    def network(self, classes: int) -> Network:
        """A fresh network of this recipe's shape, initialised from its seed."""
        torch.manual_seed(self.seed)
        return build(self.architecture, **self.arguments(classes))

    def arguments(self, classes: int) -> dict[str, Any]:
        """What `guard.networks.build` needs besides the architecture's name."""
        return {
            "classes": classes,
            "channels": self.channels,
            "width": self.width,
            "activation": self.activation,
            "grid": self.grid,
        }


@dataclass(frozen=True)
class Pictures:
    """Images (N, C, H, W) uint8 and labels (N,) int64 as tensors."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, index: Tensor) -> Tensor:
        """float32 in [0, 1] of the chosen rows."""
        return self.images[index].float().div_(255.0)


def augment(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Small rotations, zooms, shifts and changes of light, drawn per image; (N, C, H, W)."""
    count = len(images)

    def draw(span: float) -> Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * span

    angle, scale = draw(math.radians(recipe.rotation)), 1 + draw(recipe.zoom)
    cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
    across, down = draw(2 * recipe.shift), draw(2 * recipe.shift)
    rows = (cosine, -sine, across, sine, cosine, down)
    grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(images.shape), False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    bright, contrast = draw(recipe.light), 1 + draw(recipe.light)
    centre = moved.mean((1, 2, 3), keepdim=True)
    lit = (moved - centre) * contrast.view(-1, 1, 1, 1) + centre * (1 + bright).view(-1, 1, 1, 1)
    if recipe.noise:
        level = torch.rand(count, 1, 1, 1, generator=generator) * recipe.noise
        lit = lit + level * torch.randn(lit.shape, generator=generator)
    return lit.clamp(0, 1)


def nfgsm(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    generator: torch.Generator,
    spread: float = 2.0,
    bf16: bool = False,
) -> Tensor:
    """Single-step training examples (N, C, H, W), not clipped to the eps-ball (de Jorge 2022).

    The start is uniform noise of `spread` times eps around the images.
    """
    noise = torch.rand(images.shape, generator=generator) * 2 - 1
    start = images + noise * spread * eps
    start.requires_grad_()
    loss = F.cross_entropy(_logits(network, start, bf16), labels)
    (gradient,) = torch.autograd.grad(loss, start)
    return (start.detach() + eps * gradient.sign()).clamp(0, 1)


def train(
    recipe: Recipe,
    pictures: Pictures,
    holdout: Pictures,
    classes: int,
    *,
    folder: Path | None = None,
    log: Log = lambda _line: None,
) -> Network:
    """Train by the recipe and return the averaged network, in eval mode and not yet fused.

    With `folder`, a checkpoint is written after every epoch and training resumes from it; a
    checkpoint of another recipe is refused with InputError.
    """
    run = _Run(recipe, pictures, classes)
    first = run.resume(folder / "checkpoint.pt") if folder else 0
    best = -1.0
    for epoch in range(first, recipe.epochs):
        started = time.monotonic()
        loss = run.epoch(epoch)
        clean, robust = canary(run.average, holdout, eps=recipe.eps)
        collapsed = recipe.method == "nfgsm" and robust < best - 0.10
        if collapsed:
            run.restore()
            log(f"epoch {epoch + 1}: collapse (PGD-10 {robust:.3f}), last good weights restored")
        else:
            best = max(best, robust)
            run.keep()
        if folder:
            run.save(folder / "checkpoint.pt", epoch + 1)
        log(
            f"epoch {epoch + 1}/{recipe.epochs}: loss {loss:.3f}, held-out clean {clean:.3f}, "
            f"PGD-10 {robust:.3f}, {time.monotonic() - started:.0f} s"
        )
    run.average.eval()
    return run.average


@torch.no_grad()
def accuracy(network: nn.Module, pictures: Pictures, *, batch: int = 512) -> float:
    """Share of pictures classified right."""
    hits = 0
    for index in torch.split(torch.arange(len(pictures)), batch):
        hits += int((network(pictures.pixels(index)).argmax(1) == pictures.labels[index]).sum())
    return hits / max(len(pictures), 1)


def canary(
    network: nn.Module, pictures: Pictures, *, eps: float, count: int = 500
) -> tuple[float, float]:
    """Clean and PGD-10 (cross-entropy, step eps/4, from the image itself) accuracy of a sample."""
    network.eval()
    chosen = torch.linspace(0, len(pictures) - 1, min(count, len(pictures))).long()
    images, labels = pictures.pixels(chosen), pictures.labels[chosen]
    attacked = images.clone()
    for _ in range(10):
        attacked.requires_grad_()
        loss = F.cross_entropy(network(attacked), labels)
        (gradient,) = torch.autograd.grad(loss, attacked)
        moved = attacked.detach() + eps / 4 * gradient.sign()
        attacked = (images + (moved - images).clamp(-eps, eps)).clamp(0, 1)
    with torch.no_grad():
        clean = (network(images).argmax(1) == labels).float().mean()
        robust = (network(attacked).argmax(1) == labels).float().mean()
    return float(clean), float(robust)


def _logits(network: nn.Module, images: Tensor, bf16: bool) -> Tensor:
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
        out: Tensor = network(images)
    return out.float()


class _Run:
    """The live objects of one training: network, average, optimiser, generator."""

    def __init__(self, recipe: Recipe, pictures: Pictures, classes: int) -> None:
        self.recipe, self.pictures = recipe, pictures
        self.network: Network = recipe.network(classes).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average: Network = copy.deepcopy(self.network)
        self.good = copy.deepcopy(self.average.state_dict())
        self.generator = torch.Generator().manual_seed(recipe.seed)
        decay = [p for p in self.network.parameters() if p.ndim > 1]
        free = [p for p in self.network.parameters() if p.ndim <= 1]
        groups: list[dict[str, Any]] = [
            {"params": decay, "weight_decay": recipe.weight_decay},
            {"params": free},
        ]
        self.optimizer = torch.optim.SGD(groups, recipe.peak_rate, momentum=0.9, nesterov=True)

    def epoch(self, epoch: int) -> float:
        """One pass over the pictures; returns the mean loss."""
        self.network.train()
        total, steps = 0.0, max(len(self.pictures) // self.recipe.batch, 1)
        for step, index in enumerate(self._batches(steps)):
            total += self._step(index, (epoch + step / steps) / self.recipe.epochs)
        return total / steps

    def _batches(self, steps: int) -> Iterator[Tensor]:
        order = torch.randperm(len(self.pictures), generator=self.generator)
        return iter(order[: steps * self.recipe.batch].chunk(steps))

    def _step(self, index: Tensor, progress: float) -> float:
        recipe = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.peak_rate * _cycle(progress)
        images = augment(self.pictures.pixels(index), recipe, self.generator)
        images = images.contiguous(memory_format=torch.channels_last)
        loss = self._loss(images, self.pictures.labels[index], progress)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self._follow()
        return loss.item()

    def _loss(self, images: Tensor, labels: Tensor, progress: float) -> Tensor:
        recipe, smoothing = self.recipe, self.recipe.label_smoothing
        if recipe.method == "natural":
            logits = _logits(self.network, images, recipe.bf16)
            return F.cross_entropy(logits, labels, label_smoothing=smoothing)
        eps = recipe.eps * min(1.0, progress / max(recipe.warm, 1e-9))
        attacked = nfgsm(
            self.network,
            images,
            labels,
            eps=eps,
            generator=self.generator,
            spread=recipe.spread,
            bf16=recipe.bf16,
        )
        logits = _logits(self.network, attacked, recipe.bf16)
        loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        if not recipe.clean_weight:
            return loss
        clean = F.cross_entropy(_logits(self.network, images, recipe.bf16), labels)
        return (1 - recipe.clean_weight) * loss + recipe.clean_weight * clean

    @torch.no_grad()
    def _follow(self) -> None:
        source = self.network.state_dict()
        for name, value in self.average.state_dict().items():
            if value.dtype.is_floating_point and "running" not in name:
                value.lerp_(source[name], 1 - self.recipe.ema)
            else:
                value.copy_(source[name])

    def keep(self) -> None:
        """Remember the averaged weights as good."""
        self.good = copy.deepcopy(self.average.state_dict())

    def restore(self) -> None:
        """Go back to the last good weights."""
        self.average.load_state_dict(self.good)
        self.network.load_state_dict(self.good)

    def save(self, path: Path, epochs_done: int) -> None:
        """Write a checkpoint through a temporary file, so that a kill leaves the old one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "recipe": asdict(self.recipe),
            "epochs_done": epochs_done,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
        }
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def resume(self, path: Path) -> int:
        """Load a checkpoint where there is one; returns the epochs already done."""
        if not path.exists():
            return 0
        state = torch.load(path, weights_only=True)
        if state["recipe"] != asdict(self.recipe):
            raise InputError(f"{path} belongs to another recipe: use another folder or delete it")
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.keep()
        return int(state["epochs_done"])


def _cycle(progress: float, top: float = 0.3) -> float:
    """Share of the peak rate: up in a line until `top`, down in a line to zero."""
    return progress / top if progress < top else max(0.0, (1 - progress) / (1 - top))
