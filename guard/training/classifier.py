"""Trains one classifier, naturally or against attacks; every choice is a field of the recipe.

Measured (2 CPU cores): models/README.md has a row per recipe with its command, hardware and time.
Single-step training can collapse within an epoch (Wong et al. 2020): a PGD-10 canary on held-out
pictures watches every epoch and the last good weights come back.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from guard.attacks.ball import Ball
from guard.attacks.pgd import pgd
from guard.errors import InputError, NumericError
from guard.networks import Network
from guard.training import checkpoint
from guard.training.dice import Dice
from guard.training.journal import Journal
from guard.training.lesson import Lesson
from guard.training.parallel import Team
from guard.training.pictures import Pictures
from guard.training.recipe import Recipe
from guard.training.troubles import fit_together, fits, in_one_line, kept
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
    any step. Raises InputError for pictures that do not fit the recipe or the classes, another
    recipe's checkpoint, a damaged one, or one that cannot be written; NumericError when the loss
    is no longer a number; OverloadedError when memory ends; ConfigError when a batch does not
    divide by the processes. The last checkpoint survives each of them.
    """
    machine = machine or Machine()
    fit_together(pictures, holdout, classes)
    machine.team.divide(min(recipe.batch, len(pictures)))
    say = log if machine.team.leads else lambda _line: None
    with in_one_line(recipe, folder):
        run = Run(recipe, pictures, classes, machine, folder)
        fits(run.network_kept, run.pictures)
        if run.resume():
            say(f"resumed at epoch {run.epochs_done + 1}, step {run.step}")
        held = holdout.to(machine.device)
        while run.epochs_done < recipe.epochs and not run.settled():
            _one_epoch(run, held, say)
    return run.finish()


def _one_epoch(run: "Run", held: Pictures, say: Log) -> None:
    """Learn, look, judge, write down."""
    recipe, started, first = run.recipe, time.monotonic(), run.step
    losses = run.epoch()
    # Running statistics differ a little between processes: all go by what the lead sees.
    seen = canary(run.network_kept, held, eps=recipe.eps, norm=recipe.norm)
    clean, robust = run.team.share(torch.tensor(seen, device=run.machine.device)).tolist()
    seconds = time.monotonic() - started
    share = (run.steps - first) / run.steps
    event = run.judge(clean, robust)
    found = {"clean": clean, "robust": robust, "seconds": seconds, "event": event}
    speed = share * run.steps * recipe.batch / max(seconds, 1e-9)
    run.record({**losses, **found, "images_per_second": speed})
    left = (recipe.epochs - run.epochs_done) * seconds / share / 60
    say(
        f"epoch {run.epochs_done}/{recipe.epochs}: loss {losses['loss']:.3f}, held-out clean "
        f"{clean:.3f}, PGD-10 {robust:.3f}, {speed:.0f} images/s, {left:.0f} min left"
    )
    if event:
        say(f"epoch {run.epochs_done}: collapse, last good weights restored")
    run.save()


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
    try:
        network = Recipe.read(found["recipe"]).network(found["classes"])
    except (InputError, KeyError) as error:
        raise InputError(f"{folder / checkpoint.RECIPE}: {error}") from error
    tensors, _ = checkpoint.load(folder / checkpoint.WEIGHTS)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(f"{folder}: weights and recipe do not belong together") from error
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
        seen = checkpoint.fingerprint(pictures.images, pictures.labels) if folder else ""
        self.told = [len(pictures), classes, seen]
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
            means = self._learn(rows, progress)
            self.average.follow(self.network)
            for name, value in means.items():
                self.sums[name] = self.sums.get(name, 0.0) + value
            self.step += 1
            self.machine.tick(progress)
            if time.monotonic() - self.saved > self.machine.save_every:
                self.save()
        losses = {name: value / self.steps for name, value in self.sums.items()}
        self.epochs_done, self.step, self.sums = self.epochs_done + 1, 0, {}
        self.average.close_epoch(self.network, self.epochs_done / self.recipe.epochs)
        return losses

    def _learn(self, rows: Tensor, progress: float) -> dict[str, float]:
        """One step; the batch's mean losses under the journal's names."""
        pixels, labels = self.pictures.pixels(rows), self.pictures.labels[rows]
        try:
            means = self.lesson(pixels, labels, classes=self.classes, progress=progress)
        except NumericError as error:
            at = f"epoch {self.epochs_done + 1}, step {self.step + 1}"
            raise NumericError(f"{at}: {error}{kept(self.folder)}") from None
        return {
            "loss": means.loss,
            "attacked_loss": means.attacked,
            "clean_loss": means.clean,
        }

    def _order(self) -> list[Tensor]:
        """The batches of the epoch at hand: they depend on seed and epoch alone."""
        generator = torch.Generator().manual_seed(self.recipe.seed * 100_003 + self.epochs_done)
        shuffled = torch.randperm(len(self.pictures), generator=generator)
        size = min(self.recipe.batch, len(self.pictures))
        return list(shuffled.to(self.machine.device)[: self.steps * size].split(size))  # type: ignore[no-untyped-call]

    def judge(self, clean: float, robust: float) -> str:
        """Keep the weights of a good epoch, bring the last good ones back after a collapse.

        Epochs are compared by robust accuracy, in natural training by clean accuracy.
        """
        found = robust if self.recipe.adversarial else clean
        self.since_best += 1
        if self.recipe.adversarial and found < self.best - COLLAPSE:
            self.average.network.load_state_dict(self.good)
            self.network.load_state_dict(self.good)
            self.lesson.optimizer.state.clear()
            return "collapse"
        self.good = self._copy()
        if found > self.best:
            self.best, self.since_best, self.best_weights = found, 0, self.good
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
        return self.folder / checkpoint.STATE if self.folder else None

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
        if self.machine.device.type == "cuda":
            tensors["cuda"] = torch.cuda.get_rng_state(self.machine.device)
        about: dict[str, Any] = {
            "recipe": self.recipe.stored(),
            "pictures": self.told,
            "at": [self.epochs_done, self.step],
            "sums": self.sums,
            "eps": self.lesson.epsilon.value,
            "best": [self.best, self.since_best],
            "averaged": [self.average.steps, self.average.epochs],
        }
        checkpoint.save(self.path, tensors, about)

    def resume(self) -> bool:
        """Go on from the checkpoint, where there is one; every process from the same."""
        found = self.path is not None and self.path.exists()
        if self.path and found:
            tensors, about = checkpoint.load(self.path)
            self._compare(self.path, about)
            try:
                self._restore(tensors, about)
            except (KeyError, RuntimeError, TypeError, ValueError) as error:
                raise InputError(f"{self.path} does not fit this version: delete it") from error
        mine = torch.tensor([self.epochs_done, self.step], device=self.machine.device)
        if not mine.equal(self.team.share(mine.clone())):
            raise InputError("processes see different checkpoints: they need one common folder")
        return found

    def _compare(self, path: Path, about: Mapping[str, Any]) -> None:
        """InputError unless the checkpoint is of this training."""
        advice = "use another folder or delete it"
        if Recipe.read(about.get("recipe", {})) != Recipe.read(self.recipe.stored()):
            raise InputError(f"{path} belongs to another recipe: {advice}")
        told = about.get("pictures", [])
        if told[:2] != self.told[:2] or told[2:] not in ([], self.told[2:]):
            raise InputError(f"{path} belongs to other pictures: {advice}")

    def _restore(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Bring back what `save` wrote down."""
        self.network.load_state_dict(checkpoint.unflatten("network", tensors))
        self.average.network.load_state_dict(checkpoint.unflatten("average", tensors))
        self.good = checkpoint.unflatten("good", tensors)
        self.best_weights = checkpoint.unflatten("best", tensors)
        held = checkpoint.unflatten("optimizer", tensors)
        checkpoint.unpack_optimizer(self.lesson.optimizer, held)
        self.lesson.dice.generator.set_state(tensors["dice"])
        torch.set_rng_state(tensors["torch"])
        if "cuda" in tensors and self.machine.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["cuda"], self.machine.device)
        self.epochs_done, self.step = about["at"]
        self.sums, self.lesson.epsilon.value = about["sums"], about["eps"]
        self.best, self.since_best = about["best"]
        self.average.steps, self.average.epochs = about["averaged"]
        lead = self.folder if self.team.leads else None
        self.journal = Journal(lead, epochs_done=self.epochs_done)

    def _copy(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.average.network.state_dict().items()}
