"""One epoch of PGD-10 adversarial training: ours against the toolboxes, same net, same settings.

python -m tests.bench.training [--architecture plain --width 16] [--count 512] [--rounds 3]
                               [--device cpu] [--compile]

Random pictures of 3x32x32 (speed does not depend on what they show), batch 128, L-inf 8/255, ten
steps of 2/255 from a random start, SGD with momentum. Ours runs as `guard train` does, averaging
included, once in single precision and once with bf16 as its recipes have it. Peers: a plain
PyTorch loop (PGD written out), the loop with torchattacks' and with Foolbox's PGD, and ART's
AdversarialTrainerMadryPGD. Rounds are interleaved; the figure is the median, the ratio is ours
over theirs in the same run.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from guard.networks import build
from guard.training.classifier import Machine, Run
from guard.training.pictures import Pictures
from guard.training.recipe import Recipe

EPS, STEP, STEPS, BATCH = 8 / 255, 2 / 255, 10, 128


class Peer:
    """A plain training loop around somebody's PGD."""

    def __init__(self, network: nn.Module, attack: Callable[[nn.Module], Any]) -> None:
        self.network, self.attack = network.train(), attack(network)
        self.optimizer = torch.optim.SGD(
            network.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
        )

    def epoch(self, images: Tensor, labels: Tensor) -> None:
        """One pass over the pictures."""
        for some, named in zip(images.split(BATCH), labels.split(BATCH), strict=True):
            self.network.eval()
            found = self.attack(some, named)
            self.network.train()
            self.optimizer.zero_grad()
            cross_entropy(self.network(found), named).backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()


def written_out(network: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """PGD as tutorials have it."""

    def attack(images: Tensor, labels: Tensor) -> Tensor:
        moved = (images + torch.empty_like(images).uniform_(-EPS, EPS)).clamp(0, 1)
        for _ in range(STEPS):
            moved.requires_grad_(True)
            loss = cross_entropy(network(moved), labels)
            (slope,) = torch.autograd.grad(loss, moved)
            moved = moved.detach() + STEP * slope.sign()
            moved = (images + (moved - images).clamp(-EPS, EPS)).clamp(0, 1).detach()
        return moved

    return attack


def by_torchattacks(network: nn.Module) -> Any:
    """torchattacks' PGD; it leaves the network's mode to us."""
    import torchattacks

    found = torchattacks.PGD(network, eps=EPS, alpha=STEP, steps=STEPS)
    found.set_model_training_mode(model_training=False)
    return found


def by_foolbox(network: nn.Module) -> Any:
    """Foolbox's PGD with the step set by hand."""
    import foolbox

    attack = foolbox.attacks.LinfPGD(abs_stepsize=STEP, steps=STEPS)

    def run(images: Tensor, labels: Tensor) -> Tensor:
        wrapped = foolbox.PyTorchModel(network.eval(), bounds=(0, 1), device=images.device)
        found: Tensor = attack(wrapped, images, labels, epsilons=EPS)[1]
        return found

    return run


def by_art(network: nn.Module, device: str) -> Callable[[Tensor, Tensor], None]:
    """ART's own trainer, from NumPy arrays as it wants them."""
    from art.defences.trainer import AdversarialTrainerMadryPGD
    from art.estimators.classification import PyTorchClassifier

    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    classifier = PyTorchClassifier(
        network, nn.CrossEntropyLoss(), (3, 32, 32), 10, optimizer=optimizer, clip_values=(0, 1),
        device_type="cpu" if device == "cpu" else "gpu",
    )  # fmt: skip
    trainer = AdversarialTrainerMadryPGD(
        classifier, nb_epochs=1, batch_size=BATCH, eps=EPS, eps_step=STEP, max_iter=STEPS,
        num_random_init=1,
    )  # fmt: skip
    trainer.attack.set_params(verbose=False)

    def epoch(images: Tensor, labels: Tensor) -> None:
        trainer.fit(images.cpu().numpy(), labels.cpu().numpy())

    return epoch


def ours(recipe: Recipe, pictures: Pictures, machine: Machine) -> Callable[[Tensor, Tensor], None]:
    """`guard train`'s own loop."""
    run = Run(recipe, pictures, 10, machine, None)

    def epoch(_images: Tensor, _labels: Tensor) -> None:
        run.epochs_done = 0
        run.epoch()

    return epoch


def runners(arguments: argparse.Namespace, pictures: Pictures) -> dict[str, Callable[..., None]]:
    """Every contestant by name, each with a network of its own."""

    def network() -> nn.Module:
        torch.manual_seed(0)
        built = build(arguments.architecture, classes=10, width=arguments.width)
        return built.to(arguments.device)

    recipe = Recipe(
        arguments.architecture, arguments.width, attacks={"pgd": 1.0}, steps=STEPS, warm=0.0,
        epochs=1, batch=BATCH, schedule="constant", peak_rate=0.1, bf16=False,
    )  # fmt: skip
    machine = Machine(device=torch.device(arguments.device), compiled=arguments.compile)
    return {
        "guard": ours(recipe, pictures, machine),
        "guard, bf16": ours(replace(recipe, bf16=True), pictures, machine),
        "plain PyTorch loop": Peer(network(), written_out).epoch,
        "torchattacks": Peer(network(), by_torchattacks).epoch,
        "Foolbox": Peer(network(), by_foolbox).epoch,
        "ART trainer": by_art(network(), arguments.device),
    }


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--architecture", default="plain")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    raw = torch.randint(0, 256, (arguments.count, 3, 32, 32), generator=generator).byte()
    labels = torch.randint(0, 10, (arguments.count,), generator=generator)
    pictures = Pictures(raw, labels).to(arguments.device)
    images = pictures.pixels(torch.arange(arguments.count, device=arguments.device))
    contestants = runners(arguments, pictures)
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(arguments.rounds + 1):  # the first warms up
        for name, epoch in contestants.items():
            started = time.perf_counter()
            epoch(images, pictures.labels)
            if arguments.device != "cpu":
                torch.cuda.synchronize()
            if turn:
                speeds[name].append(arguments.count / (time.perf_counter() - started))
    middle = {name: statistics.median(found) for name, found in speeds.items()}
    print("| PGD-10 training | images/s | guard is | guard, bf16 is |")
    print("| --- | ---: | ---: | ---: |")
    for name, speed in middle.items():
        ratios = [f"{middle[mine] / speed:.2f}x" for mine in ("guard", "guard, bf16")]
        print(f"| {name} | {speed:.0f} | {' | '.join(ratios)} |")


if __name__ == "__main__":
    main()
