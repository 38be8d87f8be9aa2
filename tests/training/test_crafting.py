"""Examples for training: inside the ball, up the loss."""

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from guard.attacks.ball import sizes
from guard.training.crafting import NAMES, Craft, chain
from guard.training.dice import Dice
from guard.training.losses import cross_entropy, divergence, margin, shares
from tests.training.toys import NATURAL, colours

Norm = Literal["linf", "l2"]
EPS = {"linf": 0.05, "l2": 0.6}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """A small network with random weights."""
    return NATURAL.network(3).eval().requires_grad_(False)


def batch(seed: int = 0, count: int = 24) -> tuple[Tensor, Tensor]:
    """Pixels (N, 3, 8, 8) and class shares (N, 3)."""
    pictures = colours(count, seed)
    return pictures.pixels(torch.arange(count)), shares(pictures.labels, 3)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "nfgsm"])
def test_examples_stay_in_the_ball_and_raise_their_loss(
    model: nn.Module, name: str, norm: Norm
) -> None:
    """Every attack but N-FGSM keeps to eps and to [0, 1], and does what it is for."""
    images, soft = batch()
    craft = Craft(EPS[norm], norm=norm, steps=5)
    moved = craft(name, model, images, soft, Dice(0))
    assert sizes(moved - images, norm=norm).max() <= EPS[norm] * (1 + 1e-5)
    assert 0 <= moved.min() <= moved.max() <= 1
    before, after = model(images), model(moved)
    rise = {
        "trades": lambda logits: divergence(logits, before),
        "cw": lambda logits: margin(logits, soft),
        "deepfool": lambda logits: margin(logits, soft),
    }.get(name, lambda logits: cross_entropy(logits, soft))
    assert rise(after).mean() > rise(before).mean()


def test_nfgsm_steps_without_clipping_to_the_ball(model: nn.Module) -> None:
    """The example may leave the eps-ball, by up to the spread of the noise, but not [0, 1]."""
    images, soft = batch()
    moved = Craft(0.1, spread=2.0)("nfgsm", model, images, soft, Dice(0))
    assert 0.1 < (moved - images).abs().max() <= 0.3 + 1e-6
    assert 0 <= moved.min() <= moved.max() <= 1


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_one_deepfool_step_just_crosses_a_linear_boundary(norm: Norm) -> None:
    """For a linear classifier the step ends two percent behind the boundary, and no further."""
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(48, 2)).requires_grad_(False)
    images = torch.rand(16, 3, 4, 4, generator=torch.Generator().manual_seed(1)) * 0.2 + 0.4
    soft = shares(linear(images).argmax(1), 2)
    moved = Craft(10.0, norm=norm, steps=1)("deepfool", linear, images, soft, Dice(0))
    before, after = margin(linear(images), soft), margin(linear(moved), soft)
    assert torch.allclose(after, 0.02 * before.abs() + 1e-4, atol=1e-5)
    again = Craft(10.0, norm=norm, steps=2)("deepfool", linear, images, soft, Dice(0))
    assert torch.equal(again, moved), "who has crossed stays"


def test_deepfool_leaves_the_pictures_as_they_were(model: nn.Module) -> None:
    """The originals it started from do not ask for gradients afterwards."""
    images, soft = batch()
    moved = Craft(0.05, steps=2)("deepfool", model, images, soft, Dice(0))
    assert not images.requires_grad
    assert not moved.requires_grad


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("names", [["nfgsm", "pgd"], ["pgd", "cw", "deepfool"], ["fgsm", "fgsm"]])
def test_a_chain_ends_in_one_ball(model: nn.Module, names: list[str], norm: Norm) -> None:
    """However many attacks go on from each other, the last point is within eps of the picture."""
    images, soft = batch()
    moved = chain(Craft(EPS[norm], norm=norm, steps=3), names, model, images, soft, Dice(0))
    assert sizes(moved - images, norm=norm).max() <= EPS[norm] * (1 + 1e-5)


def test_a_chain_goes_on_where_it_stopped(model: nn.Module) -> None:
    """Two deterministic attacks end where the second, started from the first's end, ends."""
    images, soft = batch()
    craft = Craft(0.05, steps=2)
    both = chain(craft, ["fgsm", "bim"], model, images, soft, Dice(0))
    first = craft("fgsm", model, images, soft, Dice(0))
    second = craft("bim", model, first, soft, Dice(0))
    assert torch.allclose(both, images + (second - images).clamp(-0.05, 0.05), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_passes_are_what_an_attack_costs(model: nn.Module, name: str) -> None:
    """Every call of the model is counted, so that compute can be made equal."""
    calls = 0

    def counted(images: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        logits: Tensor = model(images)
        return logits

    images, soft = batch()
    craft = Craft(0.05, steps=4)
    craft(name, counted, images, soft, Dice(0))
    assert calls == craft.passes(name)
