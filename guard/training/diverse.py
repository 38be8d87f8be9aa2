"""Trains the members of an ensemble together, so that they stand and fall on different pictures.

Every member lowers its cross-entropy on examples made against all of them (or its own), and the
ensemble raises ADP or lowers GAL (diversity.py). Members are trained ones, for a few epochs more,
or fresh.

Measured (tests/bench/diversity.py --limit 3000, 2 busy CPU cores; three 28 k-parameter nets, signs,
eps 8/255, one seed, four epochs more; mean of the members, clean / margin PGD-20 on 900 / 300
pictures): not at all 77.0 / 45.3, each alone 74.7 / 45.7, with ADP 78.6 / 46.0. Intervals are +-6
points: no gain in robustness is seen. ADP's best member falls from 42.7 to 35.0. Not yet measured
to the end: examples against the mean without a term (so ADP's clean gain may be theirs), and GAL.
"""

import csv
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from guard.errors import ConfigError, InputError, NumericError
from guard.evaluation.robustness import Averaged
from guard.networks import Network
from guard.training import checkpoint
from guard.training.classifier import COLLAPSE, Log, Machine, canary
from guard.training.crafting import SINGLE_STEP, chain
from guard.training.dice import Dice
from guard.training.diversity import adp, apart, averaged, gal, slopes
from guard.training.lesson import Lesson
from guard.training.losses import cross_entropy, shares, smooth
from guard.training.pictures import Pictures
from guard.training.recipe import Recipe
from guard.training.weights import Average

Diversity = Literal["none", "adp", "gal"]
COLUMNS = (
    "epoch", "loss", "term", "eps", "rate", "clean", "robust", "entropy", "log_volume", "cosine",
    "passes", "seconds", "event",
)  # fmt: skip


@dataclass(frozen=True)
class Together:
    """How members learn together.

    recipe: examples, schedule, pictures' changes and batch of the joint run; its architecture and
    objective play no part. against: whom examples are made against, the mean of the members or,
    without a diversity term, each its own. alpha, beta: weights of ADP's entropy and log volume;
    gamma: weight of GAL; all as in the papers.
    """

    recipe: Recipe
    diversity: Diversity = "none"
    against: Literal["ensemble", "own"] = "ensemble"
    alpha: float = 2.0
    beta: float = 0.5
    gamma: float = 0.5

    def __post_init__(self) -> None:
        if self.diversity not in ("none", "adp", "gal"):
            raise ConfigError(f"no diversity {self.diversity!r}; there are none, adp, gal")
        if self.against not in ("ensemble", "own"):
            raise ConfigError(f"examples are made against ensemble or own, not {self.against!r}")
        if self.diversity != "none" and self.against == "own":
            raise ConfigError(f"{self.diversity} needs common examples: against the ensemble")
        if not self.recipe.adversarial:
            raise ConfigError("members learn together on attacked pictures: attacks is empty")

    def passes(self) -> float:
        """Mean forward-and-backward passes per picture, member and epoch.

        GAL's gradient of a gradient counts as two more, which is what it takes on a CPU.
        """
        return self.recipe.passes() + 2 * (self.diversity == "gal")

    def within(self, passes: float) -> "Together":
        """The same for as many whole epochs as fit into so many passes per picture and member."""
        recipe = replace(self.recipe, epochs=max(1, int(passes / self.passes())))
        return replace(self, recipe=recipe)

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> "Together":
        """From `asdict`, as a checkpoint keeps it; InputError when it is from another version."""
        try:
            return cls(**{**stored, "recipe": Recipe.read(stored["recipe"])})
        except (KeyError, TypeError) as error:
            raise InputError(f"not a joint training of this version: {error}") from error


def fine_tuning(recipe: Recipe, *, epochs: int = 4, rate: float = 0.05) -> Recipe:
    """A member's recipe for a joint run of trained members: full eps at once, small steps."""
    plain = joint(recipe)
    return replace(plain, epochs=epochs, peak_rate=rate, warm=0.0, schedule="cyclic")


def joint(recipe: Recipe) -> Recipe:
    """A member's recipe without what a joint run does not do; N-FGSM in the place of TRADES."""
    attacks = {name: weight for name, weight in recipe.attacks.items() if name != "trades"}
    return replace(
        recipe, attacks=attacks or {"nfgsm": 1.0}, epsilon="warm", objective="ce", clean_weight=0.0,
        feature_weight=0.0, l1=0.0, awp=0.0, grad_align=0.0, sigma=0.0, swa=1.0, select="last",
        patience=0,
    )  # fmt: skip


def train_together(
    together: Together,
    members: Mapping[str, Network],
    pictures: Pictures,
    holdout: Pictures,
    classes: int,
    *,
    folder: Path | None = None,
    machine: Machine | None = None,
    log: Log = lambda _line: None,
) -> dict[str, Network]:
    """Train the members, which are changed, and return their averaged twins, in eval mode.

    With `folder`, a checkpoint is written after every epoch and training resumes there, and
    `log.csv` has a row per epoch. Raises InputError for members that do not fit the pictures or
    each other, for another run's checkpoint or a damaged one; NumericError when the loss is no
    longer a number (the last checkpoint survives).
    """
    if machine and machine.team.world > 1:
        raise ConfigError("members learn together in one process: start it without torchrun")
    agree(members, pictures, classes, volume=together.diversity == "adp")
    run = _Run(together, members, pictures, holdout, classes, machine or Machine(), folder)
    if run.resume():
        log(f"resumed at epoch {run.done + 1}")
    epochs = together.recipe.epochs
    while run.done < epochs:
        row = run.epoch()
        left = (epochs - run.done) * float(row["seconds"]) / 60
        log(
            f"epoch {run.done}/{epochs}: loss {row['loss']:.3f}, {together.diversity} "
            f"{row['term']:.3f}, held-out ensemble clean {row['clean']:.3f}, PGD-10 "
            f"{row['robust']:.3f}, cosine {row['cosine']:.3f}, {left:.0f} min left"
        )
        if row["event"]:
            log(f"epoch {run.done}: collapse, last good weights restored")
        run.save()
    return run.finish()


def agree(
    members: Mapping[str, nn.Module], pictures: Pictures, classes: int, *, volume: bool = False
) -> None:
    """InputError unless all members take these pictures and tell these classes apart."""
    if len(members) < 2:
        raise InputError("learning together takes two members at least")
    if volume and len(members) >= classes:
        raise InputError(f"adp tells at most {classes - 1} members apart by {classes} classes")
    shape = tuple(pictures.images.shape[1:])
    for name, network in members.items():
        at = next(network.parameters()).device
        try:
            with torch.no_grad():
                found = network.eval()(pictures.pixels(torch.arange(1)).to(at)).shape[1]
        except RuntimeError as error:
            raise InputError(f"{name} does not take pictures of shape {shape}") from error
        if found != classes:
            raise InputError(f"{name} has {found} classes and the pictures {classes}")


class _Run:
    """The live objects of one joint training; everything that a checkpoint must bring back."""

    def __init__(
        self,
        together: Together,
        members: Mapping[str, Network],
        pictures: Pictures,
        holdout: Pictures,
        classes: int,
        machine: Machine,
        folder: Path | None,
    ) -> None:
        recipe, device = together.recipe, machine.device
        self.together, self.recipe, self.classes = together, recipe, classes
        self.machine, self.folder = machine, folder
        self.pictures, self.held = pictures.to(device), holdout.to(device)
        self.dice = Dice(recipe.seed, device=device)
        # A gradient of a gradient takes a third longer in channels_last.
        gal = together.diversity == "gal"
        self.layout = torch.contiguous_format if gal else torch.channels_last
        self.members = {
            name: network.to(device).requires_grad_(True).to(memory_format=self.layout)  # type: ignore[call-overload]
            for name, network in members.items()
        }
        self.lessons = [
            Lesson(recipe, one, dice=self.dice, team=machine.team, compiled=machine.compiled)
            for one in self.members.values()
        ]
        self.averages = {name: Average(one, decay=recipe.ema) for name, one in self.members.items()}
        self.mean = Averaged([average.network for average in self.averages.values()])
        self.steps = max(len(pictures) // recipe.batch, 1)
        self.done, self.best = 0, -1.0
        self.rows: list[dict[str, Any]] = []
        self.good = self._weights()

    # ── learning ──

    def epoch(self) -> dict[str, Any]:
        """One epoch, its measurements and its row of the log."""
        started, sums = time.monotonic(), torch.zeros(2, dtype=torch.float64)
        for number, rows in enumerate(self._order()):
            progress = (self.done + number / self.steps) / self.recipe.epochs
            for lesson in self.lessons:
                for group in lesson.optimizer.param_groups:
                    group["lr"] = self.recipe.rate(progress)
            sums += self.step(self.pictures.pixels(rows), self.pictures.labels[rows], progress)
            self.machine.tick(progress)
        self.done += 1
        clean, robust = canary(self.mean, self.held, eps=self.recipe.eps, norm=self.recipe.norm)
        row = {
            "epoch": self.done,
            **dict(zip(("loss", "term"), (sums / self.steps).tolist(), strict=True)),
            "eps": self.lessons[0].epsilon.at(self.done / self.recipe.epochs),
            "rate": self.lessons[0].optimizer.param_groups[0]["lr"],
            "clean": clean,
            "robust": robust,
            **apart([average.network for average in self.averages.values()], self.held),
            "passes": self.together.passes() * self.done,
            "seconds": time.monotonic() - started,
            "event": self._judge(robust),
        }
        self.rows.append(row)
        return row

    def step(self, pixels: Tensor, labels: Tensor, progress: float) -> Tensor:
        """Learn from pixels (N, C, H, W) and labels (N,); returns the loss and the term, (2,)."""
        recipe = self.recipe
        images = recipe.augment(pixels, self.dice).contiguous(memory_format=self.layout)
        soft = smooth(shares(labels, self.classes), recipe.label_smoothing)
        attacked = self._attack(images, soft, progress)
        for lesson in self.lessons:
            lesson.optimizer.zero_grad()
        loss, term = self._loss(attacked, soft)
        found = torch.stack([loss.detach(), term.detach()]).double().cpu()
        if not math.isfinite(float(found.sum())):
            raise NumericError(
                f"epoch {self.done + 1}: the loss became {float(found[0])}: lower --rate"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        for lesson, average in zip(self.lessons, self.averages.values(), strict=True):
            nn.utils.clip_grad_norm_(lesson.network.parameters(), recipe.clip)
            lesson.optimizer.step()
            average.follow(lesson.network)
        return found

    def _attack(self, images: Tensor, soft: Tensor, progress: float) -> list[Tensor]:
        """Examples (N, C, H, W), one batch per member: all the same, or each its own."""
        if self.together.against == "own":
            return [lesson.attack(images, soft, progress) for lesson in self.lessons]
        names, weights = list(self.recipe.attacks), list(self.recipe.attacks.values())
        chosen = [names[self.dice.pick(weights)] for _ in range(self.recipe.chained)]
        self._mode(train=all(name in SINGLE_STEP for name in chosen))
        craft = self.recipe.craft(self.lessons[0].epsilon.at(progress))
        moved = chain(craft, chosen, self._answer, images, soft, self.dice).detach()
        self._mode(train=True)
        return [moved] * len(self.lessons)

    def _answer(self, images: Tensor) -> Tensor:
        return averaged(torch.stack([lesson.both(images)[0] for lesson in self.lessons]))

    def _loss(self, attacked: Sequence[Tensor], soft: Tensor) -> tuple[Tensor, Tensor]:
        """The loss to lower, summed over members as in both papers, and the term in it."""
        kind = self.together.diversity
        if kind == "gal":
            attacked[0].requires_grad_(True)  # all members have the same batch
        logits = torch.stack(
            [lesson.both(x)[0] for lesson, x in zip(self.lessons, attacked, strict=True)]
        )
        losses = [cross_entropy(one, soft) for one in logits]
        loss = torch.stack(losses).mean(1).sum()
        term = torch.zeros_like(loss)
        if kind == "adp":
            weights = {"alpha": self.together.alpha, "beta": self.together.beta}
            term = -adp(logits, soft.argmax(1), **weights).mean()
        if kind == "gal":
            found = slopes(losses, attacked[0], create_graph=True)
            term = self.together.gamma * gal(found).mean()
        return loss + term, term

    def _order(self) -> Iterator[Tensor]:
        """The batches of the epoch at hand: they depend on seed and epoch alone."""
        generator = torch.Generator().manual_seed(self.recipe.seed * 100_003 + self.done)
        shuffled = torch.randperm(len(self.pictures), generator=generator)
        size = min(self.recipe.batch, len(self.pictures))
        yield from torch.split(shuffled.to(self.machine.device)[: self.steps * size], size)

    def _mode(self, *, train: bool) -> None:
        for network in self.members.values():
            network.train(train)

    def _judge(self, robust: float) -> str:
        """Keep the weights of a good epoch, bring the last good ones back after a collapse."""
        if robust < self.best - COLLAPSE:
            for name, lesson in zip(self.members, self.lessons, strict=True):
                held = checkpoint.unflatten(name, self.good)
                self.members[name].load_state_dict(held)
                self.averages[name].network.load_state_dict(held)
                lesson.optimizer.state.clear()
            return "collapse"
        self.good, self.best = self._weights(), max(self.best, robust)
        return ""

    def finish(self) -> dict[str, Network]:
        """The members to keep."""
        return {
            name: average.network.eval().requires_grad_(False)  # type: ignore[misc]
            for name, average in self.averages.items()
        }

    def _weights(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, average in self.averages.items():
            found |= checkpoint.flatten(name, average.network.state_dict())
        return {name: value.clone() for name, value in found.items()}

    # ── checkpoints: what is saved is what is brought back ──

    def save(self) -> None:
        """Write everything down: the checkpoint, then the log it vouches for."""
        if not self.folder:
            return
        tensors = {
            **checkpoint.flatten("good", self.good),
            "dice": self.dice.generator.get_state(),
            "torch": torch.get_rng_state(),
        }
        for (name, network), lesson in zip(self.members.items(), self.lessons, strict=True):
            kept = self.averages[name].network.state_dict()
            moments = checkpoint.pack_optimizer(lesson.optimizer)
            tensors |= checkpoint.flatten(f"network/{name}", network.state_dict())
            tensors |= checkpoint.flatten(f"average/{name}", kept)
            tensors |= checkpoint.flatten(f"optimizer/{name}", moments)
        taken = [average.steps for average in self.averages.values()]
        about = {**self._told(), "done": self.done, "best": self.best, "rows": self.rows}
        checkpoint.save(self.folder / "checkpoint.safetensors", tensors, {**about, "taken": taken})
        with (self.folder / "log.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(
                {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()}
                for row in self.rows
            )

    def resume(self) -> bool:
        """Go on from the checkpoint, where there is one."""
        path = self.folder / "checkpoint.safetensors" if self.folder else None
        if path is None or not path.exists():
            return False
        tensors, about = checkpoint.load(path)
        told = {**self._told(), "together": about.get("together")}
        same = {key: about.get(key) for key in told} == told
        if not same or Together.read(about["together"]) != self.together:
            raise InputError(f"{path} belongs to another run: use another folder or delete it")
        for (name, network), lesson in zip(self.members.items(), self.lessons, strict=True):
            network.load_state_dict(checkpoint.unflatten(f"network/{name}", tensors))
            kept = checkpoint.unflatten(f"average/{name}", tensors)
            self.averages[name].network.load_state_dict(kept)
            held = checkpoint.unflatten(f"optimizer/{name}", tensors)
            checkpoint.unpack_optimizer(lesson.optimizer, held)
        for average, taken in zip(self.averages.values(), about["taken"], strict=True):
            average.steps = taken
        self.good = checkpoint.unflatten("good", tensors)
        self.dice.generator.set_state(tensors["dice"])
        torch.set_rng_state(tensors["torch"])
        self.done, self.best, self.rows = about["done"], about["best"], about["rows"]
        return True

    def _told(self) -> dict[str, Any]:
        """What a checkpoint must agree with."""
        return {
            "together": asdict(self.together),
            "members": list(self.members),
            "pictures": [len(self.pictures), self.classes],
        }
