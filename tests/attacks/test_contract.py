"""What every attack promises, one row per attack."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from guard.attacks import cw, deepfool, fgsm, patch, pgd, round8
from guard.attacks.ball import lengths

from .conftest import Victim

Attack = Callable[..., Tensor]


@dataclass(frozen=True)
class Row:
    name: str
    attack: Attack
    options: dict[str, Any]
    success: float  # share of pictures that must fool the tiny classifier
    linf: float | None = None
    l2: float | None = None


ROWS = [
    Row("fgsm", fgsm.fgsm, {"eps": 8 / 255}, 0.6, linf=8 / 255),
    Row("fgsm-margin", fgsm.fgsm, {"eps": 8 / 255, "loss": "margin"}, 0.6, linf=8 / 255),
    Row("pgd", pgd.pgd, {"eps": 8 / 255, "steps": 10}, 0.95, linf=8 / 255),
    Row("pgd-margin", pgd.pgd, {"eps": 8 / 255, "steps": 10, "loss": "margin"}, 0.95, linf=8 / 255),
    Row(
        "pgd-early", pgd.pgd, {"eps": 8 / 255, "steps": 10, "early_stop": True}, 0.95, linf=8 / 255
    ),
    Row("pgd-restarts", pgd.pgd, {"eps": 4 / 255, "steps": 5, "restarts": 2}, 0.5, linf=4 / 255),
    Row("pgd-l2", pgd.pgd, {"eps": 1.0, "steps": 10, "norm": "l2"}, 0.8, l2=1.0),
    Row("deepfool", deepfool.deepfool, {}, 1.0, l2=5.0),
    Row("cw", cw.cw, {"steps": 60, "searches": 3, "initial_weight": 0.5}, 0.95, l2=5.0),
    Row("patch", patch.patch, {"steps": 20, "sticker": patch.Sticker(size=12)}, 0.5),
]


def run(row: Row, victim: Victim, *, count: int = 24, **options: Any) -> Tensor:
    """Attack the first pictures; options go over the row's."""
    generator = torch.Generator().manual_seed(0)
    images, labels = victim.images[:count], victim.labels[:count]
    merged = {**row.options, **options}
    return row.attack(victim.model, images, labels, generator=generator, **merged)


@pytest.fixture(params=ROWS, ids=lambda row: row.name, scope="module")
def row(request: pytest.FixtureRequest) -> Row:
    """One attack with its options."""
    chosen: Row = request.param
    return chosen


@pytest.fixture(scope="module")
def found(row: Row, victim: Victim) -> Tensor:
    """What the attack makes of 24 pictures."""
    return run(row, victim)


def test_stays_a_picture(found: Tensor, victim: Victim) -> None:
    """The result has the images' shape and dtype, lies in [0, 1] and carries no gradient."""
    assert found.shape == victim.images[:24].shape
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert found.isfinite().all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_stays_in_its_ball(row: Row, found: Tensor, victim: Victim) -> None:
    """No change is larger than the budget."""
    change = found - victim.images[:24]
    if row.linf is not None:
        assert change.abs().max() <= row.linf + 1e-6
    if row.l2 is not None:
        assert lengths(change).max() <= row.l2 + 1e-4


def test_fools(row: Row, found: Tensor, victim: Victim) -> None:
    """The tiny classifier falls."""
    with torch.no_grad():
        fooled = victim.model(found).argmax(1) != victim.labels[:24]
    assert fooled.float().mean() >= row.success


def test_same_generator_same_result(row: Row, victim: Victim) -> None:
    """All randomness comes from the generator, none from the global state."""
    before = torch.random.get_rng_state()
    one = run(row, victim, count=4)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(3)
    assert torch.equal(one, run(row, victim, count=4))


def test_leaves_the_model_alone(row: Row, victim: Victim) -> None:
    """Mode, weights, statistics and gradients of the model and the images are as before."""
    state = {name: value.clone() for name, value in victim.model.state_dict().items()}
    images = victim.images.clone()
    run(row, victim, count=4)
    assert not any(module.training for module in victim.model.modules())
    assert all(torch.equal(v, state[k]) for k, v in victim.model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in victim.model.parameters())
    assert torch.equal(images, victim.images)
    assert not victim.images.requires_grad


def test_works_under_no_grad(row: Row, victim: Victim) -> None:
    """Called inside `torch.no_grad()` it still finds its gradients."""
    with torch.no_grad():
        found = run(row, victim, count=2)
    assert torch.equal(found, run(row, victim, count=2))


TARGETED = [row for row in ROWS if row.name in ("fgsm", "pgd", "pgd-margin", "cw", "patch")]


@pytest.mark.parametrize("row", TARGETED, ids=lambda row: row.name)
def test_targeted(row: Row, victim: Victim) -> None:
    """With `targets` the classifier gives the wanted class more often than before."""
    targets = (victim.labels[:24] + 1) % 18
    options: dict[str, Any] = {"targets": targets}
    if row.name.startswith("pgd"):
        options |= {"eps": 16 / 255, "steps": 20}
    if row.name == "patch":
        targets = torch.full_like(targets, 4)
        options |= {"targets": targets, "steps": 60}
    with torch.no_grad():
        before = victim.model(victim.images[:24]).argmax(1) == targets
        after = victim.model(run(row, victim, **options)).argmax(1) == targets
    assert after.float().mean() > before.float().mean() + (0.02 if row.name == "fgsm" else 0.5)


def test_standard_classifier_falls_to_nothing(victim: Victim) -> None:
    """Sanity: PGD at 8/255 leaves a standard-trained classifier next to nothing, rounded too."""
    generator = torch.Generator().manual_seed(0)
    found = pgd.pgd(victim.model, victim.images, victim.labels, eps=8 / 255, generator=generator)
    with torch.no_grad():
        left = (victim.model(round8(found)).argmax(1) == victim.labels).float().mean()
    assert left <= 0.03


def test_round8() -> None:
    """Rounding gives the 256 levels of a picture file and moves no pixel by more than half one."""
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    rounded = round8(images)
    assert torch.equal(rounded, (rounded * 255).round() / 255)
    assert (rounded - images).abs().max() <= 0.5 / 255 + 1e-6
    assert torch.equal(round8(rounded), rounded)
