"""One step of training: change the pictures, attack them, lower the loss."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from guard.errors import NumericError
from guard.networks import Folded, Network
from guard.training.augment import cutmix
from guard.training.crafting import SINGLE_STEP, chain
from guard.training.dice import Dice
from guard.training.epsilon import Epsilon
from guard.training.losses import (
    cross_entropy,
    feature_distance,
    mart,
    misalignment,
    shares,
    smooth,
    trades,
)
from guard.training.parallel import Team
from guard.training.recipe import Recipe
from guard.training.weights import pushed


class Both(nn.Module):
    """Logits (float32) and features in one forward pass, in mixed precision if wanted."""

    def __init__(self, network: Network, bf16: bool) -> None:
        super().__init__()
        self.network, self.bf16 = network, bf16

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) to (N, K) and (N, F)."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            features = self.network.penultimate(images)
            logits: Tensor = self.network.head(self.network.dropout(features))
        return logits.float(), features


@dataclass(frozen=True)
class Means:
    """Mean losses of a batch: the one lowered, on attacked and on original pictures (or nan)."""

    loss: float
    attacked: float
    clean: float


class Lesson:
    """Teaches a network batch by batch, as the recipe says."""

    def __init__(
        self, recipe: Recipe, network: Network, *, dice: Dice, team: Team, compiled: bool = False
    ) -> None:
        self.recipe, self.network, self.dice, self.team = recipe, network, dice, team
        self.both = Both(network, recipe.bf16)
        if compiled:
            self.both.compile()
        self.model = team.wrap(self.both)
        # What attacks of several steps see: the network in eval mode, its norms folded away.
        self.folded = Folded(network)
        self.frozen = Both(self.folded.twin, recipe.bf16) if self.folded.pairs else self.both
        if compiled and self.folded.pairs:
            self.frozen.compile()
        self.optimizer = _optimizer(recipe, network)
        self.epsilon = Epsilon(
            recipe.epsilon, recipe.eps, warm=recipe.warm, start=recipe.start, alpha=recipe.alpha,
            low=recipe.clamp[0], high=recipe.clamp[1], gap=recipe.gap,
        )  # fmt: skip

    def __call__(self, pixels: Tensor, labels: Tensor, *, classes: int, progress: float) -> Means:
        """Learn from pixels (N, C, H, W) and labels (N,) when `progress` of the way is done.

        Raises NumericError when the loss is no longer a number; the weights are then untouched.
        """
        recipe = self.recipe
        images = recipe.augment(pixels, self.dice)
        soft = smooth(shares(labels, classes), recipe.label_smoothing)
        mixes = recipe.augment.cutmix
        if mixes and self.dice.pick((mixes, 1 - mixes)) == 0:
            images, soft = cutmix(images, soft, self.dice, neighbours=self.team.neighbours)
        images = images.contiguous(memory_format=torch.channels_last)
        noise = self._noise(images)
        attacked = self.attack(images, soft, progress, noise)
        images, attacked = _under(noise, images), _under(noise, attacked)
        soft = soft.repeat(max(len(noise), 1), 1)
        self.optimizer.zero_grad()
        if recipe.awp and progress >= recipe.awp_from:
            with pushed(
                self.network,
                lambda: self._loss(self.both, images, attacked, soft)[0],
                gamma=recipe.awp,
                reduce=self.team.average,
            ):
                means = self._slope(images, attacked, soft)
        else:
            means = self._slope(images, attacked, soft)
        length = nn.utils.clip_grad_norm_(self.network.parameters(), recipe.clip)
        *found, steep = torch.cat([means, length.view(1)]).tolist()
        if not math.isfinite(found[0]):
            raise NumericError(f"the loss became {found[0]}: lower peak_rate or clip")
        if not math.isfinite(steep):
            raise NumericError(f"the gradient became {steep}: lower peak_rate or clip")
        self.optimizer.step()
        self.epsilon.learn(found[1], found[2])
        return Means(*found)

    def attack(
        self, images: Tensor, soft: Tensor, progress: float, noise: Sequence[Tensor] = ()
    ) -> Tensor:
        """The batch's examples (N, C, H, W), by attacks drawn from the recipe's mix.

        Under smoothing they are made against the mean answer to the pictures plus each `noise`
        (N, C, H, W), the same draws at every step (SmoothAdv: Salman et al., NeurIPS 2019).
        """
        recipe = self.recipe
        if not recipe.adversarial:
            return images
        names, weights = list(recipe.attacks), list(recipe.attacks.values())
        chosen = [names[self.dice.pick(weights)] for _ in range(recipe.chained)]
        # Many steps would drag the running statistics along; a single one sees them fresh.
        if all(name in SINGLE_STEP for name in chosen):
            seen = self.both
        else:
            seen = self.frozen
            self.folded.refresh()
            self.network.eval()

        def victim(x: Tensor) -> Tensor:
            return _answer(seen, x, noise)

        craft = recipe.craft(self.epsilon.at(progress))
        moved = chain(craft, chosen, victim, images, soft, self.dice)
        self.network.train()
        return moved.detach()

    def _noise(self, images: Tensor) -> list[Tensor]:
        """The batch's draws of Gaussian noise, (N, C, H, W) each; none without smoothing."""
        sigma = self.recipe.sigma
        draws = self.recipe.noises if sigma else 0
        return [sigma * self.dice.normal(*images.shape) for _ in range(draws)]

    def _slope(self, images: Tensor, attacked: Tensor, soft: Tensor) -> Tensor:
        """Leave the loss's gradient in the parameters; the batch's means, (3,)."""
        loss, parts = self._loss(self.model, images, attacked, soft)
        means = torch.stack([loss.detach(), *parts])
        self.team.average(means)
        loss.backward()  # type: ignore[no-untyped-call]
        return means

    def _loss(
        self, model: nn.Module, images: Tensor, attacked: Tensor, soft: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The loss to lower, and the mean losses on attacked and on original pictures."""
        recipe, beside = self.recipe, self._sparse() + self._aligned(images, soft)
        if not recipe.paired:
            logits, _ = model(attacked)
            loss = cross_entropy(logits, soft).mean()
            absent = torch.full_like(loss.detach(), torch.nan)
            return loss + beside, (loss.detach(), absent)
        logits, features = model(torch.cat([attacked, images]))
        (hard, easy), (far, near) = logits.chunk(2), features.chunk(2)
        attacked_loss, clean_loss = cross_entropy(hard, soft), cross_entropy(easy, soft)
        if recipe.objective == "ce":
            weight = recipe.clean_weight
            rows = (1 - weight) * attacked_loss + weight * clean_loss
        else:
            pick = trades if recipe.objective == "trades" else mart
            rows = pick(hard, easy, soft, beta=recipe.beta)
        if recipe.feature_weight:
            rows = rows + recipe.feature_weight * feature_distance(far, near)
        means = attacked_loss.detach().mean(), clean_loss.detach().mean()
        return rows.mean() + beside, means

    def _aligned(self, images: Tensor, soft: Tensor) -> Tensor | float:
        """GradAlign between the pictures and uniform noise around them."""
        if not self.recipe.grad_align:
            return 0.0
        eps = self.epsilon.value if self.recipe.epsilon != "warm" else self.recipe.eps
        nearby = images + (2 * self.dice.uniform(*images.shape) - 1) * eps
        found = misalignment(lambda x: self.both(x)[0], images, nearby, soft)
        return self.recipe.grad_align * found.mean()

    def _sparse(self) -> Tensor | float:
        if not self.recipe.l1:
            return 0.0
        sizes = [p.abs().sum() for p in self.network.parameters() if p.ndim > 1]
        return self.recipe.l1 * torch.stack(sizes).sum()


def _under(noise: Sequence[Tensor], images: Tensor) -> Tensor:
    """Images (N, C, H, W) under each of S draws, (S N, C, H, W); as they are without any."""
    return torch.cat([images + one for one in noise]) if noise else images


def _answer(seen: Both, images: Tensor, noise: Sequence[Tensor]) -> Tensor:
    """What examples are made against: under smoothing, the log of the mean answer."""
    if not noise:
        logits: Tensor = seen(images)[0]
        return logits
    looks = [seen(images + one)[0].softmax(1) for one in noise]
    return torch.stack(looks).mean(0).clamp_min(1e-12).log()


def _optimizer(recipe: Recipe, network: nn.Module) -> torch.optim.Optimizer:
    """Weight decay on matrices and filters only."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups, recipe.peak_rate)
    return torch.optim.SGD(groups, recipe.peak_rate, momentum=0.9, nesterov=True)
