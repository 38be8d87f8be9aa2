"""Attacks against the toolboxes: how fast PGD-10 is crafted, and whether the numbers agree.

python -m tests.bench.attacks [--pack models/gtsrb] [--data FOLDER] [--count 256] [--device cpu]
                              [--batch 64] [--rounds 7] [--threads 1] [--agree] [--only PGD]
                              [--eps 8]

Speed: images per second of PGD-10 (L-inf, steps of eps/4, random start) on the pack's lead member.
Everybody gets the same model, pictures, batches and settings, in plain single precision and plain
layout; rounds are interleaved, the figure is the median, "ours is" the median over the rounds of
our speed divided by theirs. "early stop" lets images leave once they fool the model: the same
robust accuracy in less time. --agree: robust accuracy under PGD, APGD and AutoAttack instead, of
ours and of the referees. Without --data the pictures are procedural signs: for models/signs only.
"""

import argparse
import copy
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from guard.attacks.apgd import apgd
from guard.attacks.autoattack import autoattack
from guard.attacks.pgd import pgd
from guard.data import read, signs
from guard.defenses.load import load_evidence
from guard.errors import GuardError, InputError
from guard.pack import Pack

Craft = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Bench:
    """One model, its pictures and the settings that all share."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    classes: int
    eps: float
    batch: int

    @property
    def step(self) -> float:
        """Of PGD."""
        return self.eps / 4

    def crafted(self, craft: Craft) -> Tensor:
        """All pictures, attacked batch by batch."""
        pairs = zip(self.images.split(self.batch), self.labels.split(self.batch), strict=True)
        return torch.cat([craft(images, labels) for images, labels in pairs])

    def standing(self, craft: Craft) -> float:
        """Robust accuracy, after checking that the changes are within bounds."""
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002 - ART draws from the global state
        found = self.crafted(craft)
        if (found - self.images).abs().max() > self.eps + 1e-5:
            raise InputError("an attack left its ball")
        with torch.no_grad():
            right = [
                self.model(images).argmax(1) == labels
                for images, labels in zip(
                    found.split(self.batch), self.labels.split(self.batch), strict=True
                )
            ]
        return float(torch.cat(right).float().mean())

    def ours(self, *, early: bool = False, steps: int = 10) -> Craft:
        """Our PGD."""
        generator = torch.Generator(self.images.device).manual_seed(0)

        def craft(images: Tensor, labels: Tensor) -> Tensor:
            return pgd(
                self.model, images, labels, eps=self.eps, step=self.step, steps=steps,
                early_stop=early, generator=generator,
            )  # fmt: skip

        return craft

    def torchattacks(self, name: str, **options: Any) -> Craft:
        """An attack of torchattacks."""
        import torchattacks

        attack: Craft = getattr(torchattacks, name)(self.model, eps=self.eps, **options)
        return attack

    def foolbox(self, *, steps: int = 10) -> Craft:
        """Foolbox's PGD."""
        import foolbox

        device = str(self.images.device)
        wrapped = foolbox.PyTorchModel(self.model, bounds=(0, 1), device=device)
        attack = foolbox.attacks.LinfPGD(abs_stepsize=self.step, steps=steps)
        return lambda images, labels: attack(wrapped, images, labels, epsilons=self.eps)[1]

    def art(self, name: str, **options: Any) -> Craft:
        """An attack of ART, which takes and gives numpy arrays."""
        from art.attacks import evasion
        from art.estimators.classification import PyTorchClassifier

        shape = tuple(self.images.shape[1:])
        device = "gpu" if self.images.is_cuda else "cpu"
        classifier = PyTorchClassifier(
            copy.deepcopy(self.model), nn.CrossEntropyLoss(), shape, self.classes,
            clip_values=(0, 1), device_type=device,
        )  # fmt: skip
        attack = getattr(evasion, name)(
            classifier, eps=self.eps, batch_size=self.batch, verbose=False, **options
        )

        def craft(images: Tensor, labels: Tensor) -> Tensor:
            found = attack.generate(images.cpu().numpy(), labels.cpu().numpy())
            return torch.from_numpy(found).to(images.device)

        return craft

    def authors(self, name: str, **options: Any) -> Craft:
        """APGD or the whole AutoAttack by its authors."""
        from pyautoattack import autoattack as reference

        shared = {"eps": self.eps, "norm": "Linf", "seed": 0, "device": self.images.device}
        if name != "AutoAttack":
            attack: Craft = getattr(reference, name)(self.model, **shared, **options).perturb
            return attack
        whole = reference.AutoAttack(self.model, **shared, **options)
        whole.logger.setLevel(logging.CRITICAL)
        return lambda images, labels: whole.run_standard_evaluation(images, labels)[0]


def speed(bench: Bench, rounds: int) -> None:
    """Prints the first table."""
    options = {"eps_step": bench.step, "max_iter": 10, "num_random_init": 1}
    crafts = {
        "guard": bench.ours(),
        "guard, early stop": bench.ours(early=True),
        "torchattacks": bench.torchattacks("PGD", alpha=bench.step, steps=10),
        "Foolbox": bench.foolbox(),
        "ART": bench.art("ProjectedGradientDescentPyTorch", **options),
    }
    seconds: dict[str, list[float]] = {name: [] for name in crafts}
    for turn in range(rounds + 1):  # the first warms up
        for name, craft in crafts.items():
            started = time.perf_counter()
            bench.crafted(craft)
            if bench.images.is_cuda:
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    print(f"{'PGD-10 by':20} {'images/s':>9} {'ours is':>8}")
    for name, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(times, seconds["guard"], strict=True))
        rate = len(bench.images) / statistics.median(times)
        print(f"{name:20} {rate:9.1f} {ratio:7.2f}x")


def agree(bench: Bench, wanted: str = "") -> None:
    """Prints the second table; wanted: only the attacks whose names begin so."""
    generator = torch.Generator(bench.images.device).manual_seed(0)
    given: dict[str, Any] = {"eps": bench.eps, "generator": generator}
    options = {"eps_step": bench.step, "max_iter": 20, "num_random_init": 1}
    auto = {"eps_step": 2 * bench.eps, "max_iter": 100, "nb_random_init": 1}
    rows: dict[str, Mapping[str, Callable[[], Craft]]] = {
        "PGD-20": {
            "guard": lambda: bench.ours(steps=20),
            "torchattacks": lambda: bench.torchattacks("PGD", alpha=bench.step, steps=20),
            "Foolbox": lambda: bench.foolbox(steps=20),
            "ART": lambda: bench.art("ProjectedGradientDescentPyTorch", **options),
        },
        "APGD-CE, 100 steps": {
            "guard": lambda: lambda images, labels: apgd(bench.model, images, labels, **given),
            "authors": lambda: bench.authors("APGDAttack", n_iter=100),
            "torchattacks": lambda: bench.torchattacks("APGD", steps=100, seed=0),
            "ART": lambda: bench.art(
                "AutoProjectedGradientDescent", loss_type="cross_entropy", **auto
            ),
        },
        "AutoAttack standard": {
            "guard": lambda: lambda i, t: autoattack(bench.model, i, t, **given),
            "authors": lambda: bench.authors("AutoAttack"),
        },
    }
    print(f"{'robust accuracy':20} {'by':14} {'%':>6} {'seconds':>8}")
    for row, crafts in rows.items():
        for name, make in crafts.items() if row.startswith(wanted) else ():
            started = time.perf_counter()
            share = 100 * bench.standing(make())
            seconds = time.perf_counter() - started
            print(f"{row:20} {name:14} {share:6.2f} {seconds:8.1f}", flush=True)


def pictures(pack: Pack, data: Path | None, count: int) -> tuple[Tensor, Tensor]:
    """Pixels and labels: of a data set's test split, else procedural signs."""
    if data is None:
        if len(pack.manifest["classes"]) != len(signs.CLASSES):
            raise InputError(f"{pack.folder} is not about procedural signs: give it --data")
        made = signs.make(count, seed=77)
    else:
        whole = read(data, "test")
        chosen = torch.linspace(0, len(whole) - 1, min(count, len(whole))).long().numpy()
        made = whole.subset(chosen)
    return torch.from_numpy(made.pixels()), torch.from_numpy(made.labels)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pack", type=Path, default=Path("models/signs"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--eps", type=float, default=8, help="in 1/255")
    parser.add_argument("--agree", action="store_true")
    parser.add_argument("--only", default="", help="of --agree: PGD, APGD or AutoAttack")
    told = parser.parse_args()
    torch.set_num_threads(told.threads)
    warnings.simplefilter("ignore")
    try:
        pack = Pack.load(told.pack)
        evidence = load_evidence(pack)
        images, labels = pictures(pack, told.data, told.count)
        model = evidence.members[evidence.lead].eval().to(told.device)
        classes = len(pack.manifest["classes"])
        bench = Bench(
            model, images.to(told.device), labels.to(told.device), classes, told.eps / 255,
            told.batch,
        )  # fmt: skip
        print(f"{told.pack}, member {evidence.lead}, {len(images)} pictures, eps {told.eps:g}/255")
        if told.agree:
            agree(bench, told.only)
        else:
            speed(bench, told.rounds)
    except GuardError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
