"""Our attacks against independent implementations: torchattacks 3.5.1 and Foolbox 3.3.4.

Installed by hand (`pip install --no-deps torchattacks==3.5.1 foolbox==3.3.4 eagerpy==0.30.0`), as
their pins are older than ours; skipped where they are absent.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from guard.attacks import cw, deepfool, fgsm, pgd
from guard.attacks.ball import lengths

from .conftest import Victim


@pytest.fixture
def torchattacks() -> Any:
    """The package, or a skip."""
    return pytest.importorskip("torchattacks")


@pytest.fixture
def foolbox() -> Any:
    """The package, or a skip."""
    return pytest.importorskip("foolbox")


@pytest.fixture(autouse=True)
def _global_seed() -> Iterator[None]:
    """The referees draw from the global state."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def rate(victim: Victim, found: Tensor) -> float:
    """Share of pictures that fool the classifier."""
    with torch.no_grad():
        return float((victim.model(found).argmax(1) != victim.labels).float().mean())


def median_length(victim: Victim, found: Tensor) -> float:
    """Median L2 change, a failure counting as infinite."""
    with torch.no_grad():
        right = victim.model(found).argmax(1) == victim.labels
    return float(lengths(found - victim.images).flatten().masked_fill(right, torch.inf).median())


@pytest.mark.parametrize("eps", [1 / 255, 2 / 255, 4 / 255])
def test_fgsm_is_torchattacks_fgsm(victim: Victim, torchattacks: Any, eps: float) -> None:
    """The same picture, pixel by pixel."""
    theirs = torchattacks.FGSM(victim.model, eps=eps)(victim.images, victim.labels)
    ours = fgsm.fgsm(victim.model, victim.images, victim.labels, eps=eps)
    assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("eps", [1 / 255, 2 / 255, 4 / 255])
def test_pgd_as_strong_as_torchattacks(victim: Victim, torchattacks: Any, eps: float) -> None:
    """Success rates at matched settings differ by two points, or one picture of the 48."""
    attack = torchattacks.PGD(victim.model, eps=eps, alpha=eps / 4, steps=20)
    theirs = rate(victim, attack(victim.images, victim.labels))
    generator = torch.Generator().manual_seed(0)
    found = pgd.pgd(
        victim.model, victim.images, victim.labels,
        eps=eps, step=eps / 4, steps=20, generator=generator,
    )  # fmt: skip
    assert rate(victim, found) == pytest.approx(theirs, abs=0.0209)


def test_pgd_l2_as_strong_as_foolbox(victim: Victim, foolbox: Any) -> None:
    """L2 success rates at matched settings differ by two points, or one picture of the 48."""
    attack = foolbox.attacks.L2PGD(abs_stepsize=0.05, steps=20)
    wrapped = foolbox.PyTorchModel(victim.model, bounds=(0, 1), device="cpu")
    theirs = rate(victim, attack(wrapped, victim.images, victim.labels, epsilons=0.4)[1])
    generator = torch.Generator().manual_seed(0)
    found = pgd.pgd(
        victim.model, victim.images, victim.labels,
        eps=0.4, step=0.05, steps=20, norm="l2", generator=generator,
    )  # fmt: skip
    assert rate(victim, found) == pytest.approx(theirs, abs=0.0209)


def test_deepfool_as_short_as_foolbox(victim: Victim, foolbox: Any) -> None:
    """The median change is at most 5% longer than Foolbox's."""
    attack = foolbox.attacks.L2DeepFoolAttack(steps=50, overshoot=0.02)
    wrapped = foolbox.PyTorchModel(victim.model, bounds=(0, 1), device="cpu")
    theirs = attack(wrapped, victim.images, victim.labels, epsilons=None)[0]
    ours = deepfool.deepfool(victim.model, victim.images, victim.labels)
    assert median_length(victim, ours) <= 1.05 * median_length(victim, theirs)


def test_cw_as_short_as_torchattacks(victim: Victim, torchattacks: Any) -> None:
    """The median change is at most as long as torchattacks' with one weight and more steps."""
    theirs = torchattacks.CW(victim.model, c=1, steps=200, lr=0.01)(victim.images, victim.labels)
    ours = cw.cw(
        victim.model, victim.images, victim.labels, steps=100, searches=4, initial_weight=0.3
    )
    assert median_length(victim, ours) <= median_length(victim, theirs)


def test_cw_as_short_as_foolbox(victim: Victim, foolbox: Any) -> None:
    """The median change is at most 5% longer than Foolbox's at matched settings."""
    options = {"binary_search_steps": 4, "steps": 100, "stepsize": 0.01, "initial_const": 0.3}
    attack = foolbox.attacks.L2CarliniWagnerAttack(**options)
    wrapped = foolbox.PyTorchModel(victim.model, bounds=(0, 1), device="cpu")
    theirs = attack(wrapped, victim.images, victim.labels, epsilons=None)[0]
    ours = cw.cw(
        victim.model, victim.images, victim.labels, steps=100, searches=4, initial_weight=0.3
    )
    assert median_length(victim, ours) <= 1.05 * median_length(victim, theirs)
