"""Recipes: what they may say, what they cost, how they are kept."""

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch

from guard.errors import InputError
from guard.training.ladder import LADDER
from guard.training.recipe import Recipe
from guard.training.recipes import RECIPES
from tests.training.toys import NATURAL

EVERY = {
    **LADDER,
    **{
        f"{pack}/{name}": one
        for pack, recipe in RECIPES.items()
        for name, one in recipe.classifiers().items()
    },
}


@pytest.mark.parametrize("name", EVERY)
def test_recipes_survive_being_written_down(name: str) -> None:
    """From JSON comes the recipe that went in."""
    recipe = EVERY[name]
    assert Recipe.read(json.loads(json.dumps(recipe.stored()))) == recipe


def test_a_recipe_with_lists_and_tuples_is_the_same_when_read_back() -> None:
    """JSON knows no tuples; a checkpoint is recognised all the same."""
    recipe = replace(NATURAL, options={"mean": (0.4, 0.5, 0.6)})
    assert Recipe.read(recipe.stored()).stored() == recipe.stored()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"attacks": {"apgd": 1.0}}, "no training attack 'apgd'"),
        ({"attacks": {"pgd": -1.0}}, "weights above 0"),
        ({"attacks": {"pgd": 0.0}}, "weights above 0"),
        ({"objective": "hinge"}, "no objective 'hinge'; there are ce, trades, mart"),
        ({"norm": "l1"}, "no norm 'l1'; there are linf, l2"),
        ({"epsilon": "rising"}, "no epsilon 'rising'"),
        ({"optimizer": "adamw"}, "no optimizer 'adamw'; there are sgd, adam"),
        ({"schedule": "linear"}, "no schedule 'linear'"),
        ({"select": "first"}, "no select 'first'; there are last, best"),
        ({"epochs": 0}, "epochs is 1 at least, not 0"),
        ({"batch": 0}, "batch is 1 at least"),
        ({"eps": float("nan")}, "eps is 0.0 at least, not nan"),
        ({"clamp": (0.06, 0.01)}, "clamp is a low and a high"),
    ],
)
def test_what_no_recipe_may_say_is_refused(change: dict[str, Any], text: str) -> None:
    """The error names the field, the value and what there is instead."""
    with pytest.raises(InputError, match=text):
        replace(NATURAL, **change)


@pytest.mark.parametrize(
    "stored", [{}, {"augment": {}}, {"augment": {"spin": 1}, "clamp": [0, 1]}, {"augment": None}]
)
def test_another_versions_recipe_is_refused(stored: dict[str, Any]) -> None:
    """What cannot be read as a recipe is an error of ours, not of Python."""
    with pytest.raises(InputError, match="not a recipe of this version"):
        Recipe.read(stored)


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("plain", {}),
        ("resnet", {"depth": 8}),
        ("preact", {"depth": 8}),
        ("wide", {"depth": 10}),
        ("vit", {"depth": 1, "size": 32, "dim": 24}),
        ("torchvision", {"model": "shufflenet_v2_x0_5"}),
    ],
)
def test_every_architecture_can_be_named(architecture: str, options: dict[str, Any]) -> None:
    """A recipe gives each builder only what it takes."""
    recipe = replace(NATURAL, architecture=architecture, grid=1, options=options)
    network = recipe.network(5).eval()
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 5)


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "lenet"},
        {"activation": "step"},
        {"options": {"depth": 7}, "architecture": "resnet"},
        {"options": {"spin": 1}},
    ],
)
def test_a_network_that_cannot_be_built_is_named(change: dict[str, Any]) -> None:
    """Wrong options are an error of one line."""
    with pytest.raises(InputError, match="no network"):
        replace(NATURAL, **change).network(3)


def test_compute_is_counted_and_made_equal() -> None:
    """Passes per picture and epoch by hand, and as many epochs as fit into a budget."""
    assert LADDER["standard"].passes() == 1
    assert LADDER["nfgsm"].passes() == 2
    assert replace(LADDER["pgd"], steps=10).passes() == 11
    trades = replace(LADDER["trades"], steps=10)
    assert trades.passes() == 11 + 2
    assert replace(trades, awp=0.005, awp_from=0.5).passes() == 11 + 2 * 1.5
    assert replace(LADDER["pgd"], steps=10, sigma=0.25, noises=4).passes() == 44
    assert LADDER["nfgsm"].within(61).epochs == 30
    assert LADDER["nfgsm"].within(0.5).epochs == 1


def test_the_seed_decides_the_first_weights() -> None:
    """The same seed gives the same network, another seed another."""
    first, same = NATURAL.network(3), NATURAL.network(3)
    other = replace(NATURAL, seed=1).network(3)
    assert torch.equal(first.head.weight, same.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)


def test_fields_are_plain_values() -> None:
    """Nothing in a recipe needs more than JSON."""
    assert json.loads(json.dumps(asdict(NATURAL)))["architecture"] == "plain"
