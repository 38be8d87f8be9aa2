"""What every attack of the catalogue promises, one row per attack and way of using it."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from guard.attacks import pgd, round8
from guard.attacks.ball import sizes
from guard.attacks.catalogue import CATALOGUE, Ready, ready
from guard.errors import InputError
from guard.threat import ThreatModel

from .conftest import Victim

SMALL = {"parts": ("apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square"), "steps": 4, "queries": 5}


@dataclass(frozen=True)
class Row:
    name: str  # of the attack
    threat: str  # "" for none
    success: float  # share of pictures that must fool the tiny classifier
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        told = " ".join(str(value) for value in self.options.values() if isinstance(value, str))
        return f"{self.name} {self.threat} {told}".replace("/255", "").strip()


ROWS = [
    Row("fgsm", "linf 8/255", 0.6),
    Row("fgsm", "linf 8/255", 0.6, {"loss": "margin"}),
    Row("bim", "linf 8/255", 0.95),
    Row("mifgsm", "linf 8/255", 0.9),
    Row("mifgsm", "l2 1", 0.8),
    Row("pgd", "linf 8/255", 0.95, {"steps": 10}),
    Row("pgd", "linf 8/255", 0.95, {"steps": 10, "loss": "dlr"}),
    Row("pgd", "linf 8/255", 0.95, {"steps": 10, "early_stop": True}),
    Row("pgd", "linf 4/255", 0.5, {"steps": 5, "restarts": 2}),
    Row("pgd", "l2 1", 0.8, {"steps": 10}),
    Row("cw-linf", "linf 8/255", 0.95, {"steps": 10}),
    Row("apgd-ce", "linf 8/255", 0.95, {"steps": 10}),
    Row("apgd-ce", "l2 1", 0.8, {"steps": 10, "early_stop": False}),
    Row("apgd-dlr", "linf 8/255", 0.95, {"steps": 10, "restarts": 2}),
    Row("apgd-t", "linf 8/255", 0.95, {"steps": 10, "classes": 3}),
    Row("apgd-t", "l2 1", 0.8, {"steps": 10, "classes": 3}),
    Row("autoattack", "linf 8/255", 0.9, SMALL),
    Row("autoattack", "l2 1", 0.8, SMALL),
    Row("autoattack-quick", "linf 8/255", 0.9, {"steps": 4}),
    Row("fab", "linf 8/255", 0.9, {"steps": 8, "candidates": 3}),
    Row("fab", "", 1.0, {"steps": 8, "candidates": 3, "restarts": 2}),
    Row("fab-t", "l2 1", 0.8, {"steps": 8, "classes": 3, "restarts": 2}),
    Row("deepfool", "", 1.0),
    Row("deepfool", "l2 1", 0.8),
    Row("cw", "", 0.95, {"steps": 60, "searches": 3, "initial_weight": 0.5}),
    Row("ddn", "", 0.95, {"steps": 20}),
    Row("ddn", "l2 1", 0.7, {"steps": 20}),
    Row("square", "linf 8/255", 0.2, {"queries": 60}),
    Row("square", "l2 1", 0.2, {"queries": 60}),
    Row("hopskipjump", "", 0.9, {"queries": 200}),
    Row("simba", "", 0.5, {"queries": 200}),
    Row("patch", "patch 0.14", 0.5, {"steps": 20}),
]


def test_every_attack_has_a_row() -> None:
    """Nothing is in the catalogue that is not tested here."""
    assert {row.name for row in ROWS} == set(CATALOGUE)


def made(row: Row, **changes: Any) -> Ready:
    """The row's attack, with a fresh generator."""
    threat = ThreatModel.parse(row.threat) if row.threat else None
    generator = torch.Generator().manual_seed(0)
    return ready(row.name, threat, generator=generator, **{**row.options, **changes})


def run(row: Row, victim: Victim, *, count: int = 24, labels: Tensor | None = None) -> Tensor:
    """Attack the first pictures."""
    model: Any = victim.model
    if CATALOGUE[row.name].sees == "labels":
        model = lambda points: victim.model(points).argmax(1)  # noqa: E731
    aims = victim.labels[:count] if labels is None else labels
    return made(row)(model, victim.images[:count], aims)


@pytest.fixture(params=ROWS, ids=str, scope="module")
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
    threat = ThreatModel.parse(row.threat) if row.threat else ThreatModel("l2", 10.0)
    if threat.norm != "patch":
        change = sizes(found - victim.images[:24], norm=threat.norm)
        assert change.max() <= threat.eps * (1 + 1e-4) + 1e-6


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


# A sticker is printed for all pictures together.
ONE_BY_ONE = [row for row in ROWS if row.name != "patch"]


@pytest.mark.parametrize("row", ONE_BY_ONE, ids=str)
def test_misclassified_pictures_stay_wrong(row: Row, victim: Victim) -> None:
    """A picture that is wrong already is still wrong; most attacks leave it as it is."""
    wrong = (victim.labels[:3] + 1) % 18
    found = run(row, victim, count=3, labels=wrong)
    with torch.no_grad():
        assert (victim.model(found).argmax(1) != wrong).all()
    if row.name in UNTOUCHED:
        assert torch.equal(found, victim.images[:3])


UNTOUCHED = {name for name in CATALOGUE if name.startswith(("apgd", "auto", "fab", "square"))}


def test_an_empty_batch_comes_back(row: Row, victim: Victim) -> None:
    """No pictures in, no pictures out."""
    assert run(row, victim, count=0).shape == (0, 3, 32, 32)


def gray(classes: int) -> nn.Module:
    """An untrained classifier of one-channel pictures that flattens with `view`."""

    class Gray(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 4, 3, 2), nn.Linear(4 * 49, classes)

        def forward(self, images: Tensor) -> Tensor:
            out: Tensor = self.head(self.conv(images).relu().view(-1, 4 * 49))
            return out

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Gray().eval()


@pytest.mark.parametrize("classes", [2, 3])
def test_one_channel_one_picture_few_classes(row: Row, classes: int) -> None:
    """A batch of one gray picture of 16 x 16 and a classifier of two or three classes will do."""
    images = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    model = gray(classes)
    with torch.no_grad():
        labels = model(images).argmax(1)
    found = run(row, Victim(model, images, labels), count=1)
    assert found.shape == images.shape
    assert found.isfinite().all()


class Autocast(nn.Module):
    """A classifier in bfloat16, as it runs under autocast on a GPU."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Logits of half precision."""
        with torch.autocast("cpu", torch.bfloat16):
            out: Tensor = self.model(images)
        return out


def test_half_precision(row: Row, victim: Victim) -> None:
    """A model under bfloat16 autocast is attacked as well, in pictures of single precision."""
    half = Victim(Autocast(victim.model), victim.images, victim.labels)
    found = run(row, half, count=8)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    with torch.no_grad():
        fooled = half.model(found).argmax(1) != victim.labels[:8]
    assert fooled.float().mean() > row.success - 0.4


AIMING = [
    Row("fgsm", "linf 8/255", 0.02),
    Row("bim", "linf 16/255", 0.5),
    Row("mifgsm", "linf 16/255", 0.5),
    Row("pgd", "linf 16/255", 0.5),
    Row("cw-linf", "linf 16/255", 0.5),
    Row("apgd-ce", "linf 16/255", 0.5, {"steps": 20}),
    Row("apgd-dlr", "linf 16/255", 0.5, {"steps": 20}),
    Row("cw", "", 0.5, {"steps": 60, "searches": 3, "initial_weight": 0.5}),
    Row("ddn", "", 0.5, {"steps": 40}),
    Row("square", "linf 32/255", 0.3, {"queries": 300}),
    Row("patch", "patch 0.1", 0.5, {"steps": 60}),
]


def test_every_attack_that_aims_has_a_row() -> None:
    """The two whose aim is tested with them are HopSkipJump and SimBA."""
    aiming = {name for name, entry in CATALOGUE.items() if entry.targeted}
    assert {row.name for row in AIMING} | {"hopskipjump", "simba"} == aiming


@pytest.mark.parametrize("row", AIMING, ids=str)
def test_targeted(row: Row, victim: Victim) -> None:
    """With `targets` the classifier gives the wanted class more often than before."""
    targets = (victim.labels[:24] + 1) % 18
    if row.name == "patch":
        targets = torch.full_like(targets, 4)
    attack = made(row, targeted=True)
    with torch.no_grad():
        before = victim.model(victim.images[:24]).argmax(1) == targets
        found = attack(victim.model, victim.images[:24], victim.labels[:24], targets)
        after = victim.model(found).argmax(1) == targets
    assert after.float().mean() > before.float().mean() + row.success


def test_round8() -> None:
    """Rounding gives the 256 levels of a picture file and moves no pixel by more than half one."""
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    rounded = round8(images)
    assert torch.equal(rounded, (rounded * 255).round() / 255)
    assert (rounded - images).abs().max() <= 0.5 / 255 + 1e-6
    assert torch.equal(round8(rounded), rounded)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.rand(3, 8, 8), torch.zeros(3).long(), r"\(N, C, H, W\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2).long(), "floating"),
        (torch.rand(2, 3, 8, 8), torch.zeros(3).long(), "2 whole numbers"),
        (torch.rand(2, 3, 8, 8), torch.zeros(2), "whole numbers"),
    ],
)
def test_wrong_arguments_are_named(images: Tensor, labels: Tensor, message: str) -> None:
    """Pictures or labels of another shape or type end in one clear line."""
    with pytest.raises(InputError, match=message):
        pgd.pgd(nn.Flatten(), images, labels, eps=0.1)


def test_parameters_ask_for_gradients_again_after_a_failure(victim: Victim) -> None:
    """A model is unfrozen however the attack ends."""
    with pytest.raises(RuntimeError):
        pgd.pgd(victim.model, torch.rand(1, 1, 32, 32), torch.zeros(1).long(), eps=0.1)
    assert all(parameter.requires_grad for parameter in victim.model.parameters())


def test_inside_inference_mode(victim: Victim) -> None:
    """Pictures made in inference mode can be attacked there."""
    with torch.inference_mode():
        images = victim.images[:2] + 0
        found = pgd.pgd(victim.model, images, victim.labels[:2] + 0, eps=8 / 255, steps=5)
    assert (found - images).abs().max() > 0
