"""Tiny sign classifiers, trained in seconds, to be attacked."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from guard.data import signs


@dataclass(frozen=True)
class Victim:
    """A classifier in eval mode and pictures that it has right."""

    model: nn.Module
    images: Tensor  # (N, 3, 32, 32)
    labels: Tensor


def _network() -> nn.Sequential:
    def stage(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
        conv = nn.Conv2d(inputs, outputs, kernel, 2, kernel // 2, bias=False)
        return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]

    head = [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * 32, len(signs.CLASSES))]
    return nn.Sequential(*stage(3, 16, 5), *stage(16, 32, 3), *stage(32, 32, 3), *head)


def train(seed: int, *, count: int = 5000, epochs: int = 6, eps: float = 0.0) -> nn.Module:
    """A classifier of signs, about 10 k parameters; with eps trained by N-FGSM, else standard."""
    images, labels = (part[:count] for part in _pictures(5000, 100 + seed))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        steps = epochs * (count // 64)
        sgd = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
        rate = torch.optim.lr_scheduler.OneCycleLR(sgd, 0.1, total_steps=steps)
        for _ in range(epochs):
            for index in torch.randperm(count)[: count // 64 * 64].split(64):
                seen = images[index].contiguous(memory_format=torch.channels_last)
                if eps:
                    reach = eps * min(1.0, rate.last_epoch / (0.3 * steps))
                    seen = _perturbed(model, seen, labels[index], reach)
                sgd.zero_grad()
                cross_entropy(model(seen), labels[index]).backward()
                sgd.step()
                rate.step()
    model.zero_grad()
    return model.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]


@cache
def _pictures(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Procedural signs as pixels (N, 3, 32, 32) and labels (N,)."""
    data = signs.make(count, seed=seed, difficulty=1.0)
    return torch.from_numpy(data.pixels()), torch.from_numpy(data.labels)


def _perturbed(model: nn.Module, images: Tensor, labels: Tensor, eps: float) -> Tensor:
    """One signed step from noise of twice eps (de Jorge et al. 2022)."""
    noise = torch.empty_like(images).uniform_(-2 * eps, 2 * eps)
    start = (images + noise).requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(model(start), labels), start)
    return (start.detach() + eps * gradient.sign()).clamp(0, 1)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def victim() -> Victim:
    """The classifier under attack and 48 unseen pictures that it has right."""
    model = train(1)
    images, labels = _pictures(108, 9)
    with torch.no_grad():
        right = (model(images).argmax(1) == labels).nonzero()[:48, 0]
    assert len(right) == 48, "the tiny classifier did not learn"
    return Victim(model, images[right], labels[right])


@pytest.fixture(scope="session")
def robust() -> Victim:
    """An adversarially trained classifier and 100 unseen pictures, not all of which it has right.

    Strong attacks leave it between a third and two thirds at 6/255 and at L2 0.5.
    """
    return Victim(train(1, eps=4 / 255, count=3000, epochs=3), *_pictures(100, 9))
