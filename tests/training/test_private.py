"""DP-SGD: the budget is Opacus' own, and one picture moves the weights no further than it may."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import RDPAccountant
from torch import nn

from guard.cli import main
from guard.errors import ConfigError
from guard.training import checkpoint
from guard.training.augment import Augment
from guard.training.pictures import Pictures, accuracy
from guard.training.private import Private, _Lesson, check, train_private
from guard.training.recipe import Recipe
from tests.training.toys import NATURAL, colours, equal, stored

RECIPE = replace(NATURAL, options={"norm": "group"}, peak_rate=0.2)
SILENT = Private(1e-9, clip=0.5)  # hardly any noise, to see the clipping alone


def stepped(recipe: Recipe, pictures: Pictures, rows: list[int], private: Private) -> torch.Tensor:
    """All weights after one step on these pictures, from the recipe's first weights."""
    network = recipe.network(3)
    lesson = _Lesson(recipe, network, pictures, 3, private)
    lesson.step(torch.tensor(rows, dtype=torch.long), 0.5)
    return nn.utils.parameters_to_vector(network.parameters()).detach()


def test_the_spent_budget_is_opacus_own() -> None:
    """As many steps at this rate and noise cost what Opacus' RDP accountant says; and it learns."""
    private = Private(0.6, clip=1.0, delta=1e-4)
    network, spent = train_private(RECIPE, colours(144, 0), colours(60, 1), 3, private)
    assert (spent.steps, spent.sample_rate) == (27, 16 / 144)
    theirs = RDPAccountant()
    theirs.history = [(0.6, 16 / 144, 27)]
    assert spent.epsilon == pytest.approx(theirs.get_epsilon(1e-4), rel=1e-9)
    assert accuracy(network, colours(90, 2)) > 0.6


@settings(max_examples=8, deadline=None)
@given(st.floats(0.01, 3.0), st.integers(0, 15), st.booleans())
def test_one_picture_moves_the_weights_no_further_than_its_clip(
    clip: float, left_out: int, attacked: bool
) -> None:
    """With and without any one picture a step ends at most rate times clip over batch apart,
    however wrong its label and whatever attack is made from it."""
    recipe = replace(RECIPE, attacks={"nfgsm": 1.0}, eps=0.2, spread=0.0) if attacked else RECIPE
    pictures = colours(16, 0)
    labels = pictures.labels.clone()
    labels[left_out] = (labels[left_out] + 1) % 3
    pictures = Pictures(pictures.images, labels)
    rows = list(range(16))
    private = Private(1e-9, clip=clip)
    whole = stepped(recipe, pictures, rows, private)
    less = stepped(recipe, pictures, [row for row in rows if row != left_out], private)
    reach = recipe.peak_rate * clip / 16
    assert float((whole - less).norm()) <= reach * (1 + 1e-3) + 1e-6


def test_clipping_is_in_force() -> None:
    """A single wrong picture's step is exactly as long as its clip allows."""
    plain = replace(RECIPE, weight_decay=0.0, batch=1)
    start = nn.utils.parameters_to_vector(plain.network(3).parameters()).detach()
    far = stepped(plain, colours(1, 0), [0], SILENT) - start
    assert float(far.norm()) == pytest.approx(plain.peak_rate * 0.5, rel=1e-3)


def test_an_empty_draw_is_a_step_too() -> None:
    """Without a picture the noise is added all the same: nobody sees that nobody was there."""
    network = RECIPE.network(3)
    lesson = _Lesson(RECIPE, network, colours(16, 0), 3, Private(1.0))
    before = network.head.weight.detach().clone()
    assert lesson.step(torch.zeros(0, dtype=torch.long), 0.5) is None
    assert not torch.equal(network.head.weight, before)
    assert lesson.taken == 1


def test_the_noise_is_not_the_recipes() -> None:
    """The same recipe and seed give other weights: noise that can be repeated protects nobody."""
    first, second = (
        train_private(replace(RECIPE, epochs=1), colours(32, 0), colours(30, 1), 3, Private(1.0))[0]
        for _ in range(2)
    )
    assert not equal(first, second)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"options": {}}, "looks at each picture alone: --set options.norm=group"),
        ({"augment": Augment(cutmix=0.5)}, "without augment.cutmix"),
        ({"awp": 0.005, "l1": 0.1}, "without awp, l1"),
        ({"objective": "trades", "attacks": {"trades": 1.0}}, "without objective"),
    ],
)
def test_what_is_not_private_is_refused(change: dict[str, object], text: str) -> None:
    """Batch statistics, mixed pictures and losses over the batch are named in one line."""
    recipe = replace(RECIPE, **change)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=text):
        check(recipe, recipe.network(3))


def test_a_budget_of_nothing_is_refused() -> None:
    """Noise, clip and delta are above zero."""
    with pytest.raises(ConfigError, match="private noise must be above 0, not 0"):
        Private(0.0)


def test_the_command_writes_down_what_was_spent(tmp_path: Path) -> None:
    """`guard train classifier --private-noise`: the budget stands beside the recipe."""
    data = stored(tmp_path / "data")
    changes = ("epochs=1", "width=4", "batch=64", "bf16=false", "options.norm=group", "peak_rate=1")
    words = ["train", "classifier", str(data), "--recipe", "standard", "--device", "cpu"]
    words += [f"--set={change}" for change in changes] + ["--private-noise", "1.0"]
    found = CliRunner().invoke(main, [*words, "--out", str(tmp_path / "out")])
    assert found.exit_code == 0, found.output
    about = (checkpoint.described(tmp_path / "out" / "standard") or {})["about"]
    assert about["privacy"]["noise"] == 1.0
    assert 0 < about["privacy"]["epsilon"] < 20
    refused = [word for word in words if word != "--set=options.norm=group"]
    found = CliRunner().invoke(main, [*refused, "--out", str(tmp_path / "none")])
    assert found.exit_code == 2
    assert "looks at each picture alone" in found.stderr
