"""Our attacks against independent implementations.

torchattacks 3.5.1, Foolbox 3.3.4, ART 1.20.1 and the authors' AutoAttack (pyautoattack 0.2.0) are
installed from deploy/ci/referees.txt without their dependencies, as their pins are older than ours;
skipped where they are absent. `python -m tests.bench.attacks --agree` compares on a shipped pack.
"""

import copy
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from guard.attacks import bim, cw, ddn, deepfool, fab, fgsm, mifgsm, pgd
from guard.attacks.apgd import apgd, apgd_t
from guard.attacks.autoattack import autoattack
from guard.attacks.ball import Ball, lengths, sizes
from guard.attacks.square import square

from .conftest import Victim

EPS: dict[Ball, float] = {"linf": 6 / 255, "l2": 0.5}
THEIRS = {"linf": "Linf", "l2": "L2"}
PICTURE = 0.0101  # one of the robust classifier's 100


@pytest.fixture
def torchattacks() -> Any:
    """The package, or a skip."""
    return pytest.importorskip("torchattacks")


@pytest.fixture
def foolbox() -> Any:
    """The package, or a skip."""
    return pytest.importorskip("foolbox")


@pytest.fixture
def authors() -> Any:
    """The authors' AutoAttack, or a skip."""
    return pytest.importorskip("pyautoattack.autoattack")


@pytest.fixture
def art(robust: Victim) -> Any:
    """ART's view of the robust classifier, or a skip."""
    wrapper = pytest.importorskip("art.estimators.classification").PyTorchClassifier
    return wrapper(
        copy.deepcopy(robust.model), torch.nn.CrossEntropyLoss(), (3, 32, 32), 18,
        clip_values=(0, 1), device_type="cpu",
    )  # fmt: skip


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


def seeded() -> torch.Generator:
    """A fresh generator."""
    return torch.Generator().manual_seed(0)


def standing(victim: Victim, found: Tensor, norm: Ball) -> float:
    """Robust accuracy: share of pictures right, or changed by more than the budget."""
    with torch.no_grad():
        right = victim.model(found).argmax(1) == victim.labels[: len(found)]
    change = sizes(found - victim.images[: len(found)], norm=norm).flatten()
    assert found.min() >= 0
    assert found.max() <= 1
    return float((right | (change > EPS[norm] * (1 + 1e-4) + 1e-6)).float().mean())


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


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_robust_accuracy_under_pgd(
    robust: Victim, torchattacks: Any, foolbox: Any, art: Any, loss: Any
) -> None:
    """At most one picture above torchattacks', Foolbox's and ART's PGD, margin loss or not."""
    eps, step, steps = EPS["linf"], EPS["linf"] / 4, 20
    evasion = pytest.importorskip("art.attacks.evasion")
    wrapped = foolbox.PyTorchModel(robust.model, bounds=(0, 1), device="cpu")
    toolbox = evasion.ProjectedGradientDescentPyTorch(
        art, eps=eps, eps_step=step, max_iter=steps, num_random_init=1, batch_size=100,
        verbose=False,
    )  # fmt: skip
    theirs = [
        torchattacks.PGD(robust.model, eps=eps, alpha=step, steps=steps)(
            robust.images, robust.labels
        ),
        foolbox.attacks.LinfPGD(abs_stepsize=step, steps=steps)(
            wrapped, robust.images, robust.labels, epsilons=eps
        )[1],
        torch.from_numpy(toolbox.generate(robust.images.numpy(), robust.labels.numpy())),
    ]
    ours = pgd.pgd(
        robust.model, robust.images, robust.labels,
        eps=eps, step=step, steps=steps, loss=loss, generator=seeded(),
    )  # fmt: skip
    best = min(standing(robust, found, "linf") for found in theirs)
    assert 0.1 < best < 0.9
    assert standing(robust, ours, "linf") <= best + PICTURE


@pytest.mark.parametrize(("norm", "loss"), [("linf", "ce"), ("linf", "dlr"), ("l2", "ce")])
def test_robust_accuracy_under_apgd(
    robust: Victim, authors: Any, torchattacks: Any, norm: Ball, loss: Any
) -> None:
    """At most one picture above the authors' APGD and torchattacks', at equal steps."""
    options: dict[str, Any] = {"eps": EPS[norm], "norm": THEIRS[norm], "seed": 0, "loss": loss}
    theirs = [
        authors.APGDAttack(robust.model, n_iter=20, **options).perturb(
            robust.images, robust.labels
        ),
        torchattacks.APGD(robust.model, steps=20, **options)(robust.images, robust.labels),
    ]
    ours = apgd(
        robust.model, robust.images, robust.labels,
        eps=EPS[norm], steps=20, norm=norm, loss=loss, generator=seeded(),
    )  # fmt: skip
    best = min(standing(robust, found, norm) for found in theirs)
    assert 0.1 < best < 0.9
    assert standing(robust, ours, norm) <= best + PICTURE


def test_robust_accuracy_under_art_apgd(robust: Victim, art: Any) -> None:
    """At most one picture above ART's APGD."""
    evasion = pytest.importorskip("art.attacks.evasion")
    attack = evasion.AutoProjectedGradientDescent(
        art, eps=EPS["linf"], eps_step=2 * EPS["linf"], max_iter=20, nb_random_init=1,
        batch_size=100, loss_type="cross_entropy", verbose=False,
    )  # fmt: skip
    theirs = attack.generate(robust.images.numpy(), robust.labels.numpy())
    ours = apgd(
        robust.model, robust.images, robust.labels,
        eps=EPS["linf"], steps=20, generator=seeded(),
    )  # fmt: skip
    best = standing(robust, torch.from_numpy(theirs), "linf")
    assert standing(robust, ours, "linf") <= best + PICTURE


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_each_part_is_as_strong_as_the_authors(robust: Victim, authors: Any, norm: Ball) -> None:
    """Targeted APGD and targeted FAB within a picture of the authors', nine classes each."""
    some = Victim(robust.model, robust.images[:25], robust.labels[:25])
    options: dict[str, Any] = {"eps": EPS[norm], "norm": THEIRS[norm], "seed": 0}
    pairs: list[tuple[Any, Callable[..., Tensor]]] = [
        (authors.APGDAttack_targeted(some.model, n_iter=8, **options), apgd_t),
        (authors.FABAttack_PT(some.model, n_iter=8, targeted=True, **options), fab.fab_t),
    ]
    for reference, attack in pairs:
        theirs = reference.perturb(some.images, some.labels)
        ours = attack(
            some.model, some.images, some.labels,
            eps=EPS[norm], steps=8, norm=norm, generator=seeded(),
        )  # fmt: skip
        assert standing(some, ours, norm) <= standing(some, theirs, norm) + 4 * PICTURE


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_autoattack_is_autoattack(robust: Victim, authors: Any, norm: Ball) -> None:
    """Within one picture of 25 of the authors' AutoAttack, all four parts, shortened alike."""
    some = Victim(robust.model, robust.images[:25], robust.labels[:25])
    options: dict[str, Any] = {"eps": EPS[norm], "norm": THEIRS[norm], "seed": 0}
    reference = authors.AutoAttack(some.model, **options)
    reference.logger.setLevel(logging.CRITICAL)
    reference.apgd = authors.APGDAttack(some.model, n_iter=8, **options)
    reference.apgd_targeted = authors.APGDAttack_targeted(some.model, n_iter=8, **options)
    reference.fab = authors.FABAttack_PT(some.model, n_iter=3, targeted=True, **options)
    reference.square.n_queries = 60
    theirs, _ = reference.run_standard_evaluation(some.images, some.labels)
    ours = autoattack(
        some.model, some.images, some.labels,
        eps=EPS[norm], norm=norm, steps=8, queries=60, generator=seeded(),
    )  # fmt: skip
    left = standing(some, theirs, norm)
    assert 0.1 < left < 0.9
    assert standing(some, ours, norm) == pytest.approx(left, abs=4 * PICTURE)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_square_as_strong_as_the_authors(robust: Victim, authors: Any, norm: Ball) -> None:
    """A random search: success within three pictures of 50, at 150 queries."""
    some = Victim(robust.model, robust.images[:50], robust.labels[:50])
    reference = authors.SquareAttack(
        some.model, p_init=0.8, n_queries=150, eps=EPS[norm], norm=THEIRS[norm], seed=0,
        resc_schedule=False,
    )  # fmt: skip
    theirs = standing(some, reference.perturb(some.images, some.labels), norm)
    ours = square(
        some.model, some.images, some.labels,
        eps=EPS[norm], queries=150, norm=norm, generator=seeded(),
    )  # fmt: skip
    assert standing(some, ours, norm) <= theirs + 6 * PICTURE


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fab_as_short_as_torchattacks(victim: Victim, torchattacks: Any, norm: Ball) -> None:
    """The median change is at most 5% larger than torchattacks' FAB finds in as many steps."""
    images, labels = victim.images[:16], victim.labels[:16]
    some = Victim(victim.model, images, labels)
    attack = torchattacks.FAB(
        some.model, norm=THEIRS[norm], eps=10.0, steps=8, n_classes=10, multi_targeted=True
    )
    ours = fab.fab_t(some.model, images, labels, steps=8, norm=norm)
    medians = []
    for found in (ours, attack(images, labels)):
        with torch.no_grad():
            right = some.model(found).argmax(1) == labels
        change = sizes(found - images, norm=norm).flatten().masked_fill(right, math.inf)
        medians.append(change.median())
    assert medians[0] <= 1.05 * medians[1]


def test_ddn_is_foolbox_ddn(victim: Victim, foolbox: Any) -> None:
    """The same median change as Foolbox's DDN, to one percent."""
    attack = foolbox.attacks.DDNAttack(steps=50)
    wrapped = foolbox.PyTorchModel(victim.model, bounds=(0, 1), device="cpu")
    theirs = attack(wrapped, victim.images, victim.labels, epsilons=None)[0]
    ours = ddn.ddn(victim.model, victim.images, victim.labels, steps=50)
    assert median_length(victim, ours) <= 1.01 * median_length(victim, theirs)


def test_bim_and_mifgsm_are_torchattacks(victim: Victim, torchattacks: Any) -> None:
    """The same steps: all but a few pixels in a thousand (gradients near zero) are equal."""
    images, labels, eps = victim.images, victim.labels, 4 / 255
    pairs = [
        (
            torchattacks.BIM(victim.model, eps=eps, alpha=1 / 255, steps=5)(images, labels),
            bim.bim(victim.model, images, labels, eps=eps, steps=5),
        ),
        (
            torchattacks.MIFGSM(victim.model, eps=eps, alpha=1 / 255, steps=5)(images, labels),
            mifgsm.mifgsm(victim.model, images, labels, eps=eps, step=1 / 255, steps=5),
        ),
    ]
    for theirs, ours in pairs:
        with torch.no_grad():
            before, after = (victim.model(found).argmax(1) for found in (theirs, ours))
        assert (before == after).float().mean() > 0.97
        assert ((theirs - ours).abs() > 1e-6).float().mean() < 0.05
