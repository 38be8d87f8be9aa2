"""Black-box attacks: what they promise, what they cost, and how they compare with Foolbox's."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from guard.attacks import round8
from guard.attacks.ball import sizes
from guard.attacks.blackbox import NO_ANSWER, Oracle, Tally
from guard.attacks.goal import Goal
from guard.attacks.hopskipjump import hopskipjump
from guard.attacks.simba import simba
from guard.attacks.square import square
from guard.errors import InputError

from .conftest import Victim

Attack = Callable[..., Tensor]
COUNT = 12
ROWS = {
    "hopskipjump": (hopskipjump, {"queries": 400}),
    "hopskipjump-linf": (hopskipjump, {"queries": 400, "norm": "linf"}),
    "simba": (simba, {"queries": 300}),
    "simba-pixel": (simba, {"queries": 600, "basis": "pixel", "step": 0.5}),
    "simba-l2": (simba, {"queries": 300, "eps": 2.0}),
    "simba-linf": (simba, {"queries": 300, "eps": 16 / 255, "norm": "linf"}),
}


class Counting:
    """A model that knows how often it was asked, and that it was not differentiated."""

    def __init__(self, model: Callable[[Tensor], Tensor]) -> None:
        self.model, self.count = model, 0

    def __call__(self, points: Tensor) -> Tensor:
        """Its answers."""
        assert not torch.is_grad_enabled()
        self.count += len(points)
        return self.model(points)


def generator(seed: int = 0) -> torch.Generator:
    """A fresh one."""
    return torch.Generator().manual_seed(seed)


def median(victim: Victim, found: Tensor, norm: Any, count: int) -> float:
    """Median change, a failure counting as infinite."""
    with torch.no_grad():
        right = victim.model(found).argmax(1) == victim.labels[:count]
    change = sizes(found - victim.images[:count], norm=norm).flatten()
    return float(change.masked_fill(right, torch.inf).median())


@pytest.mark.parametrize(("attack", "options"), ROWS.values(), ids=ROWS)
def test_contract(attack: Attack, options: dict[str, Any], victim: Victim) -> None:
    """Pictures that fool, found by calls alone, the same for one generator, counted exactly."""
    images, labels = victim.images[:COUNT], victim.labels[:COUNT]
    model, tally, state = Counting(victim.model), Tally(), torch.random.get_rng_state()
    found = attack(model, images, labels, tally=tally, generator=generator(), **options)
    assert torch.equal(found, attack(model, images, labels, generator=generator(), **options))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (found.shape, found.dtype) == (images.shape, torch.float32)
    assert found.min() >= 0
    assert found.max() <= 1
    assert int(tally.queries.sum()) * 2 == model.count
    assert tally.queries.max() <= options["queries"]
    with torch.no_grad():
        fooled = victim.model(found).argmax(1) != labels
    assert fooled.float().mean() >= 0.8
    if "eps" in options:
        norm = options.get("norm", "l2")
        assert sizes(found - images, norm=norm).max() <= options["eps"] + 1e-4


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_hopskipjump_as_short_as_foolbox(victim: Victim, norm: Any) -> None:
    """At equal queries the median change is at most 1.15 times Foolbox's."""
    foolbox = pytest.importorskip("foolbox")
    counting = Counting(victim.model)

    class Counted(torch.nn.Module):
        def forward(self, points: Tensor) -> Tensor:
            """Its answers."""
            with torch.no_grad():
                return counting(points)

    images, labels = victim.images[:COUNT], victim.labels[:COUNT]
    wrapped = foolbox.PyTorchModel(Counted().eval(), bounds=(0, 1), device="cpu")
    reference = foolbox.attacks.HopSkipJumpAttack(steps=5, constraint=norm)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = reference(wrapped, images, labels, epsilons=None)[0]
    queries = counting.count // COUNT
    ours = hopskipjump(
        victim.model, images, labels, norm=norm, queries=queries, generator=generator()
    )
    assert median(victim, ours, norm, COUNT) <= 1.15 * median(victim, theirs, norm, COUNT)


@pytest.mark.parametrize(("norm", "order"), [("l2", 2), ("linf", 1)])
def test_hopskipjump_finds_the_nearest_point_of_a_plane(norm: Any, order: int) -> None:
    """For a linear classifier the distance is known: the dual norm of its weights."""
    weights = torch.randn(75, generator=generator(3))
    images = 0.5 + 0.1 * torch.rand(4, 3, 5, 5, generator=generator(4))
    heights = images.flatten(1) @ weights
    offset = heights.mean() - 1.2 * (heights - heights.mean()).abs().max()

    def decide(points: Tensor) -> Tensor:
        return (points.flatten(1) @ weights < offset).long()

    found = hopskipjump(
        decide, images, torch.zeros(4, dtype=torch.int64),
        norm=norm, queries=6000, generator=generator(),
    )  # fmt: skip
    nearest = (heights - offset) / weights.norm(p=order)
    assert decide(found).all()
    assert (sizes(found - images, norm=norm).flatten() <= 1.15 * nearest).all()


def test_hopskipjump_stops_inside_the_budget(victim: Victim) -> None:
    """An image is left alone once its change is within eps, which saves its queries."""
    images, labels = victim.images[:COUNT], victim.labels[:COUNT]
    tally = Tally()
    found = hopskipjump(
        victim.model, images, labels, queries=800, eps=3.0, tally=tally, generator=generator()
    )
    size = sizes(found - images, norm="l2").flatten()
    assert (size <= 3.0).sum() >= COUNT // 2
    assert (tally.queries[size <= 3.0] < 750).any()


def test_hopskipjump_sees_through_rounding(victim: Victim) -> None:
    """Told that the model sees 8-bit pictures, it does as well as on one that sees every number."""
    images, labels = victim.images[:COUNT], victim.labels[:COUNT]

    def rounded(points: Tensor) -> Tensor:
        return torch.as_tensor(victim.model(round8(points)))

    run = {"queries": 800, "generator": generator()}
    plain = hopskipjump(victim.model, images, labels, **run)
    found = hopskipjump(rounded, images, labels, levels=255, **run)
    assert torch.allclose(found, round8(found))
    limit = 1.3 * median(victim, plain, "l2", COUNT)
    assert median(victim, found, "l2", COUNT) <= limit


def test_hopskipjump_towards_a_wanted_class(victim: Victim) -> None:
    """With pictures of the wanted class to start from, the result is read as that class."""
    with torch.no_grad():
        start = victim.images[victim.labels != victim.labels[0]][:1]
        wanted = victim.model(start).argmax(1)
    images, labels = victim.images[:1], victim.labels[:1]
    found = hopskipjump(
        victim.model, images, labels,
        starts=start, targets=wanted, queries=500, generator=generator(),
    )  # fmt: skip
    with torch.no_grad():
        assert victim.model(found).argmax(1) == wanted
    assert sizes(found - images, norm="l2") < sizes(start - images, norm="l2")


def test_simba_by_hand() -> None:
    """On a linear model every pixel moves once, against its weight: one query or two."""
    weights = torch.tensor([3.0, -2.0, 1.0, -0.5])

    def linear(points: Tensor) -> Tensor:
        height = points.flatten(1) @ weights - 0.14
        return torch.stack([height, torch.zeros_like(height)], 1)

    images, labels = torch.full((2, 1, 2, 2), 0.5), torch.zeros(2, dtype=torch.int64)
    tally = Tally()
    found = simba(
        linear, images, labels, basis="pixel", step=0.1, tally=tally, generator=generator()
    )
    assert torch.allclose(found.flatten(1), 0.5 - 0.1 * weights.sign().expand(2, 4))
    assert tally.queries.tolist() == [1 + 2 * 1 + 2 * 2] * 2
    assert (linear(found).argmax(1) == 1).all()


def test_simba_by_hand_towards_a_wanted_class() -> None:
    """Aiming at the class that wins already costs the one look, and moves nothing."""

    def fixed(points: Tensor) -> Tensor:
        return torch.tensor([[0.0, 1.0, 2.0]]).expand(len(points), 3)

    images, tally = torch.full((1, 1, 2, 2), 0.5), Tally()
    right, wanted = torch.tensor([0]), torch.tensor([2])
    found = simba(fixed, images, right, targets=wanted, tally=tally, generator=generator())
    assert torch.equal(found, images)
    assert tally.queries.tolist() == [1]


def test_dct_directions_are_orthonormal() -> None:
    """The low-frequency directions have length 1 and are at right angles."""
    from guard.attacks.simba import _Directions

    directions = _Directions("dct", torch.zeros(1, 2, 8, 6), 0.5)
    every = directions.shuffled(1, generator())[0].sort().values
    basis = directions.at(every).flatten(1)
    assert basis.shape == (2 * 4 * 3, 96)
    assert torch.allclose(basis @ basis.T, torch.eye(24), atol=1e-6)


def test_no_answer_is_not_fooled() -> None:
    """Silence is neither a wrong label nor a better score, for points with and without a limit."""
    goal = Goal(torch.tensor([1, 1]))
    points, rows = torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 1])
    silent = Oracle(lambda p: torch.full((len(p),), NO_ANSWER), goal, limit=2)
    assert not silent.fooled(points, rows).any()
    lost = Oracle(lambda p: torch.full((len(p), 3), torch.nan), goal, limit=2)
    rise, fooled = lost.rise(points, rows)
    assert (rise == -torch.inf).all()
    assert not fooled.any()


def test_square_takes_no_answer_for_what_it_is() -> None:
    """Nobody answers: every query is spent, and nothing counts as fooled on the way."""
    counting = Counting(lambda p: torch.full((len(p), 3), torch.nan))
    images, labels = torch.full((2, 1, 4, 4), 0.5), torch.tensor([1, 2])
    found = square(counting, images, labels, eps=0.1, queries=9, generator=generator())
    assert counting.count == 2 * (1 + 9)
    assert found.isfinite().all()


def test_an_oracle_never_goes_beyond_its_limit() -> None:
    """Of too many questions about one image the first are asked, the rest are not answered."""
    counting = Counting(lambda p: torch.zeros(len(p), dtype=torch.int64))
    oracle = Oracle(counting, Goal(torch.tensor([1, 1])), limit=2)
    rows = torch.tensor([1, 0, 1, 1, 0])
    fooled = oracle.fooled(torch.zeros(5, 1, 2, 2), rows)
    assert fooled.tolist() == [True, True, True, False, True]
    assert counting.count == 4
    assert oracle.left(torch.tensor([0, 1])).tolist() == [0, 0]
    assert not oracle.fooled(torch.zeros(1, 1, 2, 2), rows[:1]).any()
    assert counting.count == 4


def test_simba_says_that_it_needs_scores() -> None:
    """A model of labels alone is refused in words."""
    with pytest.raises(InputError, match="scores"):
        simba(
            lambda p: torch.zeros(len(p), dtype=torch.int64),
            torch.zeros(1, 1, 2, 2), torch.zeros(1, dtype=torch.int64),
        )  # fmt: skip
