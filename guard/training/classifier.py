"""Trains one classifier, naturally or against attacks; every choice is a field of the recipe.

Measured (2 CPU cores): models/README.md has a row per recipe with its command, hardware and time.
Single-step training can collapse within an epoch (Wong et al. 2020): a PGD-10 canary on held-out
pictures watches every epoch and the last good weights come back.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from guard.attacks.ball import Ball
from guard.attacks.pgd import pgd
from guard.errors import InputError, NumericError, OverloadedError
from guard.networks import Network
from guard.training import checkpoint
from guard.training.dice import Dice
from guard.training.journal import Journal
from guard.training.lesson import Lesson
from guard.training.parallel import Team
from guard.training.pictures import Pictures
from guard.training.recipe import Recipe
from guard.training.weights import Average

Log = Callable[[str], None]
COLLAPSE = 0.10  # robust accuracy lost from one epoch to a later one


@dataclass(frozen=True)
class Machine:
    """Where and how a run computes; none of it changes what is learned, but for rounding."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    team: Team = field(default_factory=Team)
    compiled: bool = False
    save_every: float = 60.0  # seconds between checkpoints within an epoch
    tick: Callable[[float], None] = lambda _progress: None


def train(
    recipe: Recipe,
    pictures: Pictures,
    holdout: Pictures,
    classes: int,
    *,
    folder: Path | None = None,
    machine: Machine | None = None,
    log: Log = lambda _line: None,
) -> Network:
    """Train by the recipe and return the averaged network, in eval mode and not yet fused.

    With `folder`, checkpoints are written on the way and training resumes from the last one, at
    any step. Raises InputError for labels outside the classes, another recipe's checkpoint or a
    damaged one; NumericError when the loss is no longer a number; OverloadedError when memory
    ends. The last checkpoint survives each of them.
    """
    _fit_to_each_other(pictures, classes)
    run = Run(recipe, pictures, classes, machine or Machine(), folder)
    say = log if run.team.leads else lambda _line: None
    if run.resume():
        say(f"resumed at epoch {run.epochs_done + 1}, step {run.step}")
    held = holdout.to(run.machine.device)
    while run.epochs_done < recipe.epochs and not run.settled():
        started, first = time.monotonic(), run.step
        try:
            losses = run.epoch()
            clean, robust = canary(run.network_kept, held, eps=recipe.eps, norm=recipe.norm)
        except NumericError as error:
            raise NumericError(f"epoch {run.epochs_done + 1}, step {run.step + 1}: {error}") from None
        except (RuntimeError, MemoryError) as error:
            raise _explained(error, recipe, folder) from error
        seconds = time.monotonic() - started
        share = (run.steps - first) / run.steps
        event = run.judge(robust)
        found = {**losses, "clean": clean, "robust": robust, "seconds": seconds, "event": event}
        speed = share * run.steps * recipe.batch / max(seconds, 1e-9)
        run.record({**found, "images_per_second": speed})
        left = (recipe.epochs - run.epochs_done) * seconds / share / 60
        say(
            f"epoch {run.epochs_done}/{recipe.epochs}: loss {losses['loss']:.3f}, held-out clean "
            f"{clean:.3f}, PGD-10 {robust:.3f}, {speed:.0f} images/s, {left:.0f} min left"
        )
        if event:
            say(f"epoch {run.epochs_done}: collapse, last good weights restored")
        run.save()
    return run.finish()


def canary(
    network: nn.Module, pictures: Pictures, *, eps: float, norm: Ball = "linf", count: int = 500
) -> tuple[float, float]:
    """Clean and PGD-10 (cross-entropy, step eps/4, from the image itself) accuracy of a sample."""
    network.eval()
    images, labels = pictures.sample(count)
    attacked = pgd(
        network, images, labels, eps=eps, steps=10, step=eps / 4, norm=norm, random_start=False
    )
    with torch.no_grad():
        clean = (network(images).argmax(1) == labels).float().mean()
        robust = (network(attacked).argmax(1) == labels).float().mean()
    return float(clean), float(robust)


def load_classifier(folder: Path) -> Network:
    """A finished classifier as `guard train` left it, in eval mode; InputError if it is not."""
    found = checkpoint.described(folder)
    if found is None:
        raise InputError(f"{folder} holds no finished classifier")
    network = Recipe.read(found["recipe"]).network(found["classes"])
    tensors, _ = checkpoint.load(folder / checkpoint.WEIGHTS)
    network.load_state_dict(tensors)
    return network.eval().requires_grad_(False)


class Run:
    """The live objects of one training; everything that a checkpoint must bring back."""

    def __init__(
        self,
        recipe: Recipe,
        pictures: Pictures,
        classes: int,
        machine: Machine,
        folder: Path | None,
    ) -> None:
        self.recipe, self.machine, self.team = recipe, machine, machine.team
        self.pictures, self.classes = pictures.to(machine.device), classes
        self.folder = folder
        network = recipe.network(classes).to(machine.device)
        self.network: Network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = Average(self.network, decay=recipe.ema, swa=recipe.swa)
        dice = Dice(recipe.seed, device=machine.device, rank=self.team.rank, world=self.team.world)
        self.lesson = Lesson(
            recipe, self.network, dice=dice, team=self.team, compiled=machine.compiled
        )
        self.steps = max(len(pictures) // recipe.batch, 1)
        self.step = self.epochs_done = 0
        self.sums: dict[str, float] = {}
        self.good = self.best_weights = self._copy()
        self.best, self.since_best = -1.0, 0
        self.journal = Journal(folder if self.team.leads else None)
        self.saved = time.monotonic()

    @property
    def network_kept(self) -> Network:
        """The averaged network."""
        return cast(Network, self.average.network)

    def epoch(self) -> dict[str, float]:
        """The rest of the epoch at hand; returns the mean losses."""
        self.network.train()
        order = self._order()
        while self.step < self.steps:
            progress = (self.epochs_done + self.step / self.steps) / self.recipe.epochs
            rows = self.team.rows(order[self.step])
            for group in self.lesson.optimizer.param_groups:
                group["lr"] = self.recipe.rate(progress)
            means = self.lesson(
                self.pictures.pixels(rows),
                self.pictures.labels[rows],
                classes=self.classes,
                progress=progress,
            )
            self.average.follow(self.network)
            for name, value in asdict(means).items():
                self.sums[name] = self.sums.get(name, 0.0) + value
            self.step += 1
            self.machine.tick(progress)
            if time.monotonic() - self.saved > self.machine.save_every:
                self.save()
        losses = {name: value / self.steps for name, value in self.sums.items()}
        self.epochs_done, self.step, self.sums = self.epochs_done + 1, 0, {}
        self.average.close_epoch(self.network, self.epochs_done / self.recipe.epochs)
        return losses

    def _order(self) -> list[Tensor]:
        """The batches of the epoch at hand: they depend on seed and epoch alone."""
        generator = torch.Generator().manual_seed(self.recipe.seed * 100_003 + self.epochs_done)
        shuffled = torch.randperm(len(self.pictures), generator=generator)
        size = min(self.recipe.batch, len(self.pictures))
        return list(shuffled.to(self.machine.device)[: self.steps * size].split(size))

    def judge(self, robust: float) -> str:
        """Keep the weights of a good epoch, bring the last good ones back after a collapse."""
        if self.recipe.adversarial and robust < self.best - COLLAPSE:
            self.average.network.load_state_dict(self.good)
            self.network.load_state_dict(self.good)
            self.lesson.optimizer.state.clear()
            return "collapse"
        self.good = self._copy()
        self.since_best += 1
        if robust > self.best:
            self.best, self.since_best, self.best_weights = robust, 0, self.good
        return ""

    def settled(self) -> bool:
        """Whether patience is at its end."""
        return bool(self.recipe.patience) and self.since_best >= self.recipe.patience

    def finish(self) -> Network:
        """The network to keep."""
        if self.recipe.select == "best":
            self.average.network.load_state_dict(self.best_weights)
        return self.network_kept.eval().requires_grad_(True)

    def record(self, found: Mapping[str, float | str]) -> None:
        """One row of the journal, with where the run stands."""
        progress = self.epochs_done / self.recipe.epochs
        stands = {
            "epoch": self.epochs_done,
            "step": self.epochs_done * self.steps,
            "eps": self.lesson.epsilon.at(progress) if self.recipe.adversarial else 0.0,
            "rate": self.lesson.optimizer.param_groups[0]["lr"],
            "passes": self.recipe.passes() * self.epochs_done,
        }
        self.journal.write({**stands, **found})

    # ── checkpoints: what is saved is what is brought back ──

    @property
    def path(self) -> Path | None:
        """The checkpoint's file."""
        return self.folder / "checkpoint.safetensors" if self.folder else None

    def save(self) -> None:
        """Write everything down."""
        self.saved = time.monotonic()
        if not self.path or not self.team.leads:
            return
        tensors = {
            **checkpoint.flatten("network", self.network.state_dict()),
            **checkpoint.flatten("average", self.average.network.state_dict()),
            **checkpoint.flatten("good", self.good),
            **checkpoint.flatten("best", self.best_weights),
            **checkpoint.flatten("optimizer", checkpoint.pack_optimizer(self.lesson.optimizer)),
            "dice": self.lesson.dice.generator.get_state(),
            "torch": torch.get_rng_state(),
        }
        about: dict[str, Any] = {
            "recipe": asdict(self.recipe),
            "pictures": [len(self.pictures), self.classes],
            "at": [self.epochs_done, self.step],
            "sums": self.sums,
            "eps": self.lesson.epsilon.value,
            "best": [self.best, self.since_best],
            "averaged": [self.average.steps, self.average.epochs],
        }
        checkpoint.save(self.path, tensors, about)

    def resume(self) -> bool:
        """Go on from the checkpoint, where there is one."""
        if not self.path or not self.path.exists():
            return False
        tensors, about = checkpoint.load(self.path)
        if Recipe.read(about["recipe"]) != self.recipe:
            raise InputError(
                f"{self.path} belongs to another recipe: use another folder or delete it"
            )
        if about["pictures"] != [len(self.pictures), self.classes]:
            raise InputError(f"{self.path} belongs to other pictures: use another folder")
        self.network.load_state_dict(checkpoint.unflatten("network", tensors))
        self.average.network.load_state_dict(checkpoint.unflatten("average", tensors))
        self.good = checkpoint.unflatten("good", tensors)
        self.best_weights = checkpoint.unflatten("best", tensors)
        held = checkpoint.unflatten("optimizer", tensors)
        checkpoint.unpack_optimizer(self.lesson.optimizer, held)
        self.lesson.dice.generator.set_state(tensors["dice"])
        torch.set_rng_state(tensors["torch"])
        self.epochs_done, self.step = about["at"]
        self.sums, self.lesson.epsilon.value = about["sums"], about["eps"]
        self.best, self.since_best = about["best"]
        self.average.steps, self.average.epochs = about["averaged"]
        self.journal = Journal(
            self.folder if self.team.leads else None, epochs_done=self.epochs_done
        )
        return True

    def _copy(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.average.network.state_dict().items()}


def _fit_to_each_other(pictures: Pictures, classes: int) -> None:
    if not len(pictures):
        raise InputError("there is nothing to train on")
    found = int(pictures.labels.max()) + 1
    if found > classes:
        raise InputError(f"the pictures have {found} classes and the network {classes}")


def _explained(error: RuntimeError | MemoryError, recipe: Recipe, folder: Path | None) -> Exception:
    """An error of the machinery in one line, where it is one that a user can do something about."""
    text = str(error).lower()
    short = isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in text
    kept = " (the last checkpoint is kept)" if folder else ""
    if short:
        return OverloadedError(f"out of memory at batch {recipe.batch}: lower it{kept}")
    return error

