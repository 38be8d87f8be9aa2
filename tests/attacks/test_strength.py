"""Signs of a broken attack, looked for in ours (Athalye et al. 2018; Carlini et al. 2019)."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from guard.attacks.autoattack import QUICK, autoattack
from guard.attacks.boundary import crossing
from guard.attacks.catalogue import ready
from guard.attacks.goal import Goal
from guard.errors import InputError
from guard.threat import ThreatModel

from .conftest import Victim


def left(victim: Victim, name: str, threat: str, **options: Any) -> float:
    """Robust accuracy under a named attack."""
    generator = torch.Generator().manual_seed(0)
    attack = ready(name, ThreatModel.parse(threat), generator=generator, **options)
    found = attack(victim.model, victim.images, victim.labels)
    with torch.no_grad():
        return float((victim.model(found).argmax(1) == victim.labels).float().mean())


@pytest.mark.parametrize("name", ["pgd", "cw-linf", "apgd-ce", "autoattack"])
def test_standard_classifier_falls_to_nothing(victim: Victim, name: str) -> None:
    """A standard-trained classifier keeps nothing at 16/255, and PGD leaves it 3% at 8/255."""
    assert left(victim, name, "linf 16/255") == 0
    assert left(victim, name, "linf 8/255") <= 0.03


@pytest.mark.parametrize("name", ["pgd", "apgd-ce", "apgd-t"])
def test_a_robust_classifier_falls_in_a_large_ball(robust: Victim, name: str) -> None:
    """At 64/255 anything can be anything: no more than one picture in fifty stands."""
    assert left(robust, name, "linf 64/255", steps=30) <= 0.02


def test_the_order_of_strength(robust: Victim) -> None:
    """More steps are no weaker than one, APGD no weaker than PGD, Square no stronger than either.

    The last would be a sign that gradients mislead; AutoAttack is at least as strong as its parts.
    """
    some = Victim(robust.model, robust.images[:50], robust.labels[:50])
    rates = {
        name: left(some, name, "linf 6/255", **options)
        for name, options in {
            "fgsm": {},
            "bim": {},
            "pgd": {"steps": 10},
            "apgd-ce": {"steps": 10},
            "apgd-t": {"steps": 10, "classes": 4},
            "autoattack-quick": {"steps": 10},
            "square": {"queries": 100},
        }.items()
    }
    picture = 0.0201
    assert 0.1 < rates["apgd-t"] < 0.9
    assert rates["bim"] <= rates["fgsm"]
    assert rates["pgd"] <= rates["fgsm"]
    assert rates["apgd-ce"] <= rates["pgd"] + picture
    assert rates["autoattack-quick"] <= min(rates["apgd-ce"], rates["apgd-t"]) + picture
    assert rates["apgd-ce"] <= rates["square"]


def test_a_larger_ball_is_never_safer(robust: Victim) -> None:
    """Robust accuracy falls with the budget."""
    rates = [left(robust, "apgd-ce", f"linf {eps}/255", steps=10) for eps in (2, 4, 8, 16)]
    assert rates == sorted(rates, reverse=True)


def test_images_leave_once_they_fool(robust: Victim) -> None:
    """Early stopping asks the model less, and leaves as much standing to a picture."""

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.count = robust.model, 0

        def forward(self, images: Tensor) -> Tensor:
            self.count += len(images)
            out: Tensor = self.model(images)
            return out

    asked, rates = [], []
    for early in (True, False):
        counting = Counting().eval()
        some = Victim(counting, robust.images, robust.labels)
        rates.append(left(some, "apgd-ce", "linf 6/255", steps=20, early_stop=early))
        asked.append(counting.count)
    assert asked[0] < 0.8 * asked[1]
    assert rates[0] == pytest.approx(rates[1], abs=0.0101)


def test_autoattack_reports_and_runs_what_is_asked(robust: Victim) -> None:
    """Progress names each part with what still stands, which only falls; batches are as asked."""
    seen: list[tuple[str, int, int]] = []
    autoattack(
        robust.model, robust.images[:20], robust.labels[:20], eps=6 / 255, parts=QUICK, steps=5,
        batch=8, progress=lambda *line: seen.append(line),
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert list(dict.fromkeys(part for part, _, _ in seen)) == list(QUICK)
    assert [standing for _, standing, _ in seen] == sorted((s for _, s, _ in seen), reverse=True)
    assert {total for _, _, total in seen} == {20}
    with pytest.raises(InputError, match="no part 'magic'"):
        autoattack(
            robust.model, robust.images, robust.labels, eps=0.1,
            parts=("magic",),  # type: ignore[arg-type]
        )  # fmt: skip


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_crossing_is_the_shortest_way_to_the_plane(norm: Any) -> None:
    """It lands on the plane inside [0, 1], and no random point of the plane there is nearer."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(6, 1, 2, 2, generator=generator)
    slope = torch.randn(6, 1, 2, 2, generator=generator)
    slope[0, 0, 0, 0] = 0
    value = 0.3 * torch.randn(6, generator=generator)
    value[5] = 100.0  # out of reach
    change = crossing(value, slope, points, norm=norm)
    landed = value + (slope * change).sum((1, 2, 3))
    assert landed[:5].abs().max() < 1e-4
    assert 0 < landed[5] < 100
    assert ((points + change) >= -1e-6).all()
    assert ((points + change) <= 1 + 1e-6).all()
    assert change[0, 0, 0, 0] == 0
    order = torch.inf if norm == "linf" else 2
    others = torch.rand(200_000, 4, generator=generator)
    for k in range(5):
        near = ((others - points[k].flatten()) @ slope[k].flatten() + value[k]).abs() < 2e-3
        rivals = (others[near] - points[k].flatten()).norm(order, dim=1)
        assert change[k].norm(order) <= rivals.min() + 5e-3


def test_the_logits_ratio() -> None:
    """DLR as in the paper: the gap over first minus third, towards a target over its own spread."""
    logits = torch.tensor([[4.0, 3.0, 1.0, 0.0]])
    label, target = torch.tensor([0]), torch.tensor([2])
    assert Goal(label, None, "dlr").rise(logits).item() == pytest.approx(-1 / 3)
    assert Goal(label, target, "dlr").rise(logits).item() == pytest.approx(-3 / (4 - 0.5))
    assert Goal(label, None, "dlr").rise(logits[:, :2]).item() == pytest.approx(-1)


def test_a_compiled_model_is_attacked_as_well(robust: Victim) -> None:
    """Under torch.compile, batch sizes changing as images leave, PGD leaves as much standing."""
    compiled = torch.compile(robust.model, backend="aot_eager")
    some = Victim(robust.model, robust.images[:24], robust.labels[:24])
    fast = Victim(compiled, some.images, some.labels)
    rates = [
        left(one, "pgd", "linf 6/255", steps=4, early_stop=True, random_start=False)
        for one in (some, fast)
    ]
    assert rates[0] == pytest.approx(rates[1], abs=1.01 / 24)
    assert all(parameter.requires_grad for parameter in robust.model.parameters())
