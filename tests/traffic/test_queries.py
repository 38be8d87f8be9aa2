"""Sequences of queries: attacks are flagged, honest traffic is not."""

import numpy as np
import pytest
import torch

from guard.attacks.hopskipjump import hopskipjump
from guard.attacks.simba import simba
from guard.attacks.square import square
from guard.data import signs
from guard.traffic.memory import Reach
from guard.traffic.queries import QueryWatch, Sighting

SHAPE = (3, 32, 32)
IMAGES = signs.make(40, seed=5, size=32).pixels()


class Clock:
    """A clock that stands until it is told."""

    now = 0.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


def watch(**options: object) -> QueryWatch:
    """A watch with the default reach."""
    settings = {"secret": b"s" * 32, "reach": Reach(0.06, 0.04), **options}
    return QueryWatch(SHAPE, **settings)  # type: ignore[arg-type]


def noisy(image: np.ndarray, count: int, seed: int = 0) -> np.ndarray:  # type: ignore[type-arg]
    """Copies with noise of 4/255."""
    random = np.random.default_rng(seed)
    copies = image[None] + random.uniform(-4, 4, (count, *SHAPE)) / 255
    return np.clip(copies, 0, 1).astype(np.float32)


def test_from_the_alarm_on_a_sequence_is_an_attack() -> None:
    """Each query knows its sequence's length, and the fifth different picture is flagged."""
    found = watch(alarm=5).look(noisy(IMAGES[0], 7))
    assert [each.length for each in found] == [1, 2, 3, 4, 5, 6, 7]
    assert [each.flagged for each in found] == [False] * 4 + [True] * 3
    assert len({each.sequence for each in found}) == 1


def test_the_same_picture_again_is_no_attack() -> None:
    """A client that tries again a hundred times is never flagged, and takes no memory."""
    eyes = watch()
    found = [eyes.look(IMAGES[:1])[0] for _ in range(100)]
    assert not any(each.flagged for each in found)
    assert len(eyes.memory) == 1


def test_the_first_answer_of_a_sequence_is_the_one_that_counts() -> None:
    """Later answers, which the attacker is after, do not replace it."""
    eyes, copies = watch(), noisy(IMAGES[0], 6)
    for label, copy in enumerate(copies):
        (sighting,) = eyes.look(copy[None])
        eyes.answered(sighting, label)
    assert (sighting.flagged, sighting.label) == (True, 0)


def test_a_sequence_ends_with_its_memory() -> None:
    """What comes when all of it is forgotten begins anew."""
    clock = Clock()
    eyes = watch(seconds=60.0, clock=clock)
    eyes.look(noisy(IMAGES[0], 6))
    clock.now = 100.0
    assert eyes.look(noisy(IMAGES[0], 1, seed=9))[0].length == 1


def test_many_small_sequences_do_not_grow_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sequences that are longest unseen go first."""
    monkeypatch.setattr("guard.traffic.queries.SEQUENCES", 3)
    eyes = watch()
    for image in IMAGES[:8]:
        eyes.look(noisy(image, 3))
    assert len(eyes._sequences) == 3


def test_no_queries_are_no_news() -> None:
    """An empty batch is answered."""
    assert watch().look(np.zeros((0, *SHAPE), np.float32)) == []


class EnoughError(Exception):
    """The attack has been seen."""


@pytest.mark.parametrize("name", ["square", "simba", "hopskipjump"])
def test_attacks_are_seen_within_fifty_queries(name: str) -> None:
    """Each of the three families, among honest traffic, on a small random network."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 8))
    eyes = watch()
    assert not any(each.flagged for each in eyes.look(IMAGES[10:]))
    asked: list[Sighting] = []

    def model(points: torch.Tensor) -> torch.Tensor:
        asked.extend(eyes.look(((points * 255).round() / 255).numpy()))
        if asked and asked[-1].flagged:
            raise EnoughError
        with torch.no_grad():
            return network(points)  # type: ignore[no-any-return]

    image = torch.tensor(IMAGES[:1])
    with torch.no_grad():
        label = network(image).argmax(1)
    attack = {
        "square": lambda: square(model, image, label, eps=1 / 255, area=0.1),  # type: ignore[arg-type]
        "simba": lambda: simba(model, image, label, step=0.01),
        "hopskipjump": lambda: hopskipjump(model, image, label),
    }[name]
    with pytest.raises(EnoughError):
        attack()
    first = next(at for at, each in enumerate(asked) if each.flagged)
    assert first < 50
