"""Two tiny sign classifiers, trained in seconds, to be attacked."""

from collections.abc import Iterator
from dataclasses import dataclass

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


def train(seed: int, *, count: int = 5000, epochs: int = 6) -> nn.Module:
    """A standard-trained classifier of signs, about 10 k parameters."""
    data = signs.make(count, seed=100 + seed, difficulty=1.0)
    images, labels = torch.from_numpy(data.pixels()), torch.from_numpy(data.labels)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _network()
        steps = epochs * (count // 64)
        sgd = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
        rate = torch.optim.lr_scheduler.OneCycleLR(sgd, 0.1, total_steps=steps)
        for _ in range(epochs):
            for index in torch.randperm(count)[: count // 64 * 64].split(64):
                sgd.zero_grad()
                cross_entropy(model(images[index]), labels[index]).backward()
                sgd.step()
                rate.step()
    model.zero_grad()
    return model.eval()


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
    data = signs.make(108, seed=9, difficulty=1.0)
    images, labels = torch.from_numpy(data.pixels()), torch.from_numpy(data.labels)
    with torch.no_grad():
        right = (model(images).argmax(1) == labels).nonzero()[:48, 0]
    assert len(right) == 48, "the tiny classifier did not learn"
    return Victim(model, images[right], labels[right])
