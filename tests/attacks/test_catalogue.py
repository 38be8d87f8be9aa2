"""The attacks by name: what may be asked of them, and what is refused."""

from typing import Any

import pytest
import torch

from guard.attacks.ball import lengths
from guard.attacks.catalogue import CATALOGUE, find, ready
from guard.errors import InputError
from guard.threat import LINF_8, ThreatModel

from .conftest import Victim


@pytest.mark.parametrize(
    ("name", "threat", "options", "message"),
    [
        ("pdg", LINF_8, {}, "no attack 'pdg'; there are fgsm, bim"),
        ("pgd", LINF_8, {"stepz": 3}, "pgd has no option 'stepz'; its options: steps, step"),
        ("cw-linf", LINF_8, {"loss": "ce"}, "cw-linf has no option 'loss'"),
        ("pgd", LINF_8, {"eps": 0.1}, "pgd has no option 'eps'"),
        ("pgd", None, {}, "pgd needs a threat model, such as 'linf 8/255'"),
        ("patch", None, {}, "patch needs a threat model, such as 'patch 0.1'"),
        ("fgsm", ThreatModel("l2", 0.5), {}, "fgsm is an attack in linf, not in l2"),
        ("pgd", ThreatModel("patch", 0.1), {}, "pgd is an attack in linf or l2, not in patch"),
        ("apgd-t", LINF_8, {"targeted": True}, "apgd-t cannot aim at a wanted class"),
    ],
)
def test_what_cannot_be_is_refused(
    name: str, threat: ThreatModel | None, options: dict[str, Any], message: str
) -> None:
    """A wrong name, option, norm or aim ends in one line that says what would do."""
    with pytest.raises(InputError) as caught:
        ready(name, threat, **options)
    assert message in str(caught.value)


def test_every_entry_says_what_it_is() -> None:
    """Names are unique and lower-case; each has one line, a norm, a paper and a generator."""
    for name, entry in CATALOGUE.items():
        assert name == entry.name.lower()
        assert entry.about
        assert "\n" not in entry.about
        assert entry.norms
        assert "generator" in entry.takes
        assert entry.run.__doc__
        assert "(N, C, H, W)" in entry.run.__doc__


def test_options_left_out_keep_their_defaults() -> None:
    """None means: as the attack has it; the recipe states all that decides the outcome."""
    recipe = ready("pgd", LINF_8, steps=None, restarts=3).recipe
    assert recipe["attack"] == "pgd"
    assert recipe["threat"] == "linf 8/255"
    assert (recipe["steps"], recipe["restarts"], recipe["norm"]) == (20, 3, "linf")
    assert ready("cw-linf", LINF_8).recipe["loss"] == "margin"
    assert find("apgd-ce").options["steps"] == 100


def test_minimal_attacks_are_held_to_a_budget(victim: Victim) -> None:
    """Examples outside the budget are given back as the originals, the others as found."""
    images, labels = victim.images[:12], victim.labels[:12]
    free = ready("deepfool")(victim.model, images, labels)
    size = lengths(free - images)
    budget = float(size.median())
    held = ready("deepfool", ThreatModel("l2", budget))(victim.model, images, labels)
    inside = (size <= budget).flatten()
    assert 0 < inside.sum() < 12
    assert torch.equal(held[inside], free[inside])
    assert torch.equal(held[~inside], images[~inside])


def test_targets_go_with_targeted_attacks(victim: Victim) -> None:
    """Targets are refused where the attack was not made to aim, and asked for where it was."""
    images, labels = victim.images[:2], victim.labels[:2]
    with pytest.raises(InputError, match="targets"):
        ready("pgd", LINF_8)(victim.model, images, labels, labels)
    with pytest.raises(InputError, match="targets"):
        ready("pgd", LINF_8, targeted=True)(victim.model, images, labels)


def test_a_share_of_the_area_sizes_the_sticker(victim: Victim) -> None:
    """A patch threat model of 0.1 covers about a tenth of the picture."""
    attack = ready("patch", ThreatModel("patch", 0.1), steps=2, shared=False)
    found = attack(victim.model, victim.images[:4], victim.labels[:4])
    changed = (found - victim.images[:4]).abs().amax(1).gt(1e-6).float().mean()
    assert 0.06 < changed < 0.16
