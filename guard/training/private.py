"""DP-SGD: what a classifier tells about any one training picture, bounded and counted.

Abadi et al., CCS 2016, by Opacus: gradients of single pictures, clipped and drowned in Gaussian
noise; pictures are drawn into batches at random (Poisson), the Renyi accountant adds up. Only for
networks that look at each picture alone ("group" norms). Natural training or attacks, which are
made from the picture and the (private) weights. The budget covers the pictures trained on, once,
for this one run: choosing recipes by the outcome costs more than is counted. Sampling and noise
come from the system's entropy: a seed in the recipe would let anybody take the noise away again;
so a private run is not repeatable, and it cannot be resumed.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from opacus import GradSampleModule
from opacus.accountants import RDPAccountant
from opacus.optimizers import DPOptimizer
from opacus.validators import ModuleValidator
from torch import Tensor

from guard.errors import ConfigError, InputError, NumericError
from guard.networks import Network, fuse
from guard.training import checkpoint
from guard.training.classifier import Machine, canary
from guard.training.crafting import chain
from guard.training.dice import Dice
from guard.training.epsilon import Epsilon
from guard.training.losses import cross_entropy, shares, smooth
from guard.training.pictures import Pictures
from guard.training.recipe import Recipe
from guard.training.troubles import fit_together, fits, in_one_line
from guard.training.weights import Average

Log = Callable[[str], None]


@dataclass(frozen=True)
class Private:
    """noise: its standard deviation in clips; clip: longest gradient of one picture; delta: the
    chance that the bound does not hold, well below one in the number of pictures."""

    noise: float
    clip: float = 1.0
    delta: float = 1e-5

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 < value < math.inf:
                raise ConfigError(f"private {name} must be above 0, not {value}", key=name)


@dataclass(frozen=True)
class Spent:
    """The (epsilon, delta) of a finished training, and how it came about."""

    epsilon: float
    delta: float
    noise: float
    clip: float
    sample_rate: float
    steps: int


def train_private(
    recipe: Recipe,
    pictures: Pictures,
    holdout: Pictures,
    classes: int,
    private: Private,
    *,
    device: torch.device | str = "cpu",
    log: Log = lambda _line: None,
) -> tuple[Network, Spent]:
    """The averaged network, in eval mode and not yet fused, and what was spent.

    Raises ConfigError for a recipe or a network that is not private, else as `classifier.train`.
    """
    fit_together(pictures, holdout, classes)
    network = recipe.network(classes).to(device)
    check(recipe, network)
    with in_one_line(recipe, None):
        held = holdout.to(device)
        fits(network.eval(), held)
        network.train()
        lesson = _Lesson(recipe, network, pictures.to(device), classes, private)
        for epoch in range(1, recipe.epochs + 1):
            loss = lesson.epoch(epoch)
            kept = cast(Network, lesson.average.network)
            clean, robust = canary(kept, held, eps=recipe.eps, norm=recipe.norm)
            log(
                f"epoch {epoch}/{recipe.epochs}: loss {loss:.3f}, held-out clean {clean:.3f}, "
                f"PGD-10 {robust:.3f}, spent epsilon {lesson.spent().epsilon:.2f} "
                f"at delta {private.delta:g}"
            )
    return kept.eval().requires_grad_(True), lesson.spent()


def private_classifier(
    name: str,
    recipe: Recipe,
    fit: Pictures,
    holdout: Pictures,
    classes: int,
    private: Private,
    *,
    out: Path,
    machine: Machine,
    log: Log,
) -> Network:
    """The trained, fused network, stored in `out/NAME` with what was spent beside the recipe.

    Raises InputError where a finished classifier lies: training again spends again.
    """
    if machine.team.world > 1:
        raise ConfigError("private training is for one process", key="private-noise")
    if checkpoint.described(out / name):
        raise InputError(f"{out / name} holds a finished classifier: use another folder")
    network, spent = train_private(
        recipe, fit, holdout, classes, private, device=machine.device,
        log=lambda line: log(f"{name}: {line}"),
    )  # fmt: skip
    about = {"pictures": len(fit), "privacy": asdict(spent)}
    checkpoint.save_classifier(out / name, network, recipe, classes=classes, about=about)
    fuse(network)
    return network.requires_grad_(False)


def check(recipe: Recipe, network: Network) -> None:
    """ConfigError for what mixes pictures with each other, or is not counted."""
    problems = ModuleValidator.validate(network, strict=False)
    if problems:
        raise ConfigError(
            "private training needs a network that looks at each picture alone: "
            "--set options.norm=group",
            key="private-noise",
        )
    mixing = {
        "augment.cutmix": recipe.augment.cutmix, "awp": recipe.awp, "sigma": recipe.sigma,
        "l1": recipe.l1, "grad_align": recipe.grad_align, "feature_weight": recipe.feature_weight,
        "clean_weight": recipe.clean_weight, "objective": recipe.objective != "ce",
        "epsilon": recipe.epsilon != "warm", "select": recipe.select != "last",
        "patience": recipe.patience,
    }  # fmt: skip
    used = [name for name, value in mixing.items() if value]
    if used:
        raise ConfigError(f"private training is without {', '.join(used)}", key="private-noise")


class _Lesson:
    """The live objects of one private training."""

    def __init__(
        self, recipe: Recipe, network: Network, pictures: Pictures, classes: int, private: Private
    ) -> None:
        self.recipe, self.pictures, self.classes = recipe, pictures, classes
        self.private, self.device = private, pictures.labels.device
        self.rate = min(recipe.batch / len(pictures), 1.0)
        self.steps, self.taken = max(round(1 / self.rate), 1), 0
        self.entropy = torch.Generator(self.device)
        self.entropy.seed()
        self.dice = Dice(recipe.seed, device=self.device)
        self.strength = Epsilon("warm", recipe.eps, warm=recipe.warm)
        self.average = Average(network, decay=recipe.ema)
        self.network = network
        self.hooked = GradSampleModule(network)
        base = torch.optim.SGD(
            network.parameters(), recipe.peak_rate, momentum=0.9, weight_decay=recipe.weight_decay
        )
        self.optimizer = DPOptimizer(
            base,
            noise_multiplier=private.noise,
            max_grad_norm=private.clip,
            expected_batch_size=max(round(self.rate * len(pictures)), 1),
            generator=self.entropy,
        )
        self.accountant = RDPAccountant()

    def epoch(self, number: int) -> float:
        """As many draws as give every picture one chance on average; the mean loss."""
        losses = []
        for step in range(self.steps):
            progress = (number - 1 + step / self.steps) / self.recipe.epochs
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.rate(progress)
            drawn = torch.rand(len(self.pictures), generator=self.entropy, device=self.device)
            loss = self.step((drawn < self.rate).nonzero()[:, 0], progress)
            if loss is not None and not math.isfinite(loss):
                raise NumericError(f"epoch {number}, step {step + 1}: the loss became {loss}")
            losses += [] if loss is None else [loss]
        return sum(losses) / max(len(losses), 1)

    def step(self, rows: Tensor, progress: float) -> float | None:
        """Learn from these pictures; None where none was drawn: the noise is added alike."""
        self.optimizer.zero_grad()
        loss = None
        if len(rows):
            loss = self._slopes(rows, progress)
        else:
            for parameter in self.network.parameters():
                parameter.grad_sample = torch.zeros(0, *parameter.shape, device=self.device)  # type: ignore[attr-defined]
        self.optimizer.step()
        self.taken += 1
        self.accountant.step(noise_multiplier=self.private.noise, sample_rate=self.rate)
        self.average.follow(self.network)
        return loss

    def _slopes(self, rows: Tensor, progress: float) -> float:
        """Leave each picture's gradient with the parameters; the mean loss."""
        images = self.recipe.augment(self.pictures.pixels(rows), self.dice)
        soft = smooth(shares(self.pictures.labels[rows], self.classes), self.recipe.label_smoothing)
        loss = cross_entropy(self.hooked(self._attack(images, soft, progress)), soft).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def _attack(self, images: Tensor, soft: Tensor, progress: float) -> Tensor:
        if not self.recipe.adversarial:
            return images
        names, weights = list(self.recipe.attacks), list(self.recipe.attacks.values())
        chosen = [names[self.dice.pick(weights)] for _ in range(self.recipe.chained)]
        craft = self.recipe.craft(self.strength.at(progress))
        self.hooked.disable_hooks()
        self.network.requires_grad_(False)
        moved = chain(craft, chosen, self.network, images, soft, self.dice)
        self.network.requires_grad_(True)
        self.hooked.enable_hooks()
        return moved.detach()

    def spent(self) -> Spent:
        """So far."""
        used = self.private
        epsilon = float(self.accountant.get_epsilon(used.delta)) if self.taken else 0.0
        return Spent(epsilon, used.delta, used.noise, used.clip, self.rate, self.taken)
