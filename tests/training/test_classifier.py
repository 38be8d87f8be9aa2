"""Training one classifier."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from guard.errors import InputError, NumericError, OverloadedError
from guard.networks import Network
from guard.training import checkpoint
from guard.training.augment import Augment
from guard.training.classifier import Machine, canary, train
from guard.training.pictures import Pictures, accuracy
from guard.training.recipe import Recipe
from tests.training.toys import NATURAL, colours, equal, taught

ROBUST = replace(NATURAL, attacks={"nfgsm": 1.0}, eps=0.1, spread=1.0, warm=0.2, epochs=3)
# Everything that draws, remembers or averages, at once.
FULL = replace(
    ROBUST,
    attacks={"pgd": 1.0, "nfgsm": 1.0, "deepfool": 0.5},
    chained=2,
    steps=2,
    epsilon="steered",
    clean_weight=0.3,
    feature_weight=0.1,
    awp=0.005,
    awp_from=0.3,
    swa=0.5,
    l1=1e-5,
    label_smoothing=0.1,
    optimizer="adam",
    peak_rate=0.01,
    augment=Augment(rotation=5, light=0.1, noise=0.02, flip=True, crop=1, erase=0.2, cutmix=0.4),
    options={"dropout": 0.2},
)


class Stop(Exception):  # noqa: N818
    """The end of a training, somewhere on its way."""


def stopping_at(step: int) -> Machine:
    """A machine that writes a checkpoint after every step and stops after so many."""
    left = step

    def tick(_progress: float) -> None:
        nonlocal left
        if left == 0:
            raise Stop
        left -= 1

    return Machine(save_every=0.0, tick=tick)


def test_training_learns() -> None:
    """A few short epochs are enough for an easy task."""
    assert accuracy(taught(NATURAL, count=144), colours(90, 2)) > 0.9


def test_adversarial_training_stands_where_natural_training_falls() -> None:
    """N-FGSM leaves more standing under PGD-10 than natural training of the same length."""
    stands = [
        canary(taught(replace(one, epochs=6), count=144), colours(90, 2), eps=0.17)[1]
        for one in (replace(ROBUST, eps=0.17), NATURAL)
    ]
    assert stands[0] > stands[1] + 0.2


@pytest.mark.parametrize("recipe", [NATURAL, FULL])
def test_the_same_recipe_gives_the_same_weights(recipe: Recipe) -> None:
    """Everything random comes from the recipe's seed, whatever happened before."""
    first = taught(recipe)
    torch.rand(7)
    assert equal(taught(recipe), first)
    assert not equal(taught(replace(recipe, seed=1)), first)


@pytest.mark.parametrize("step", [1, 3, 5])
def test_training_resumes_at_any_step(tmp_path: Path, step: int) -> None:
    """Stopped after any step, in or between epochs, it ends with the same weights, bit for bit."""
    pictures, held = colours(48, 0), colours(30, 1)
    lines: list[str] = []
    with pytest.raises(Stop):
        train(FULL, pictures, held, 3, folder=tmp_path, machine=stopping_at(step))
    torch.rand(11)
    resumed = train(FULL, pictures, held, 3, folder=tmp_path, log=lines.append)
    assert lines[0] == f"resumed at epoch {step // 3 + 1}, step {step % 3}"
    assert equal(resumed, taught(FULL))


def test_dropout_is_in_force_while_training() -> None:
    """The recipe's dropout changes what is learned."""
    assert not equal(taught(replace(NATURAL, options={"dropout": 0.5})), taught(NATURAL))


@pytest.mark.parametrize("save_every", [0.0, 60.0])
def test_a_loss_that_is_no_number_ends_in_one_line(tmp_path: Path, save_every: float) -> None:
    """It names epoch and step; the checkpoint before it is kept and holds finite weights."""
    recipe = replace(NATURAL, epochs=4, peak_rate=1e38, clip=1e38, schedule="constant")
    pictures, held = colours(48, 0), colours(30, 1)
    (tmp_path / "x").mkdir()
    with pytest.raises(NumericError, match=r"^epoch \d, step \d: the (loss|gradient) became") as e:
        train(
            recipe, pictures, held, 3, folder=tmp_path, machine=Machine(save_every=save_every)
        )  # fmt: skip
    assert "\n" not in str(e.value)
    if (tmp_path / checkpoint.STATE).exists():
        assert "the last checkpoint is kept" in str(e.value)
        tensors, _ = checkpoint.load(tmp_path / checkpoint.STATE)
        weights = checkpoint.unflatten("network", tensors)
        assert all(value.isfinite().all() for value in weights.values())


def test_a_gradient_that_is_no_number_leaves_the_weights(tmp_path: Path) -> None:
    """A finite loss with an infinite slope ends the training before the step is taken."""
    network = {}

    class Steep(torch.autograd.Function):
        """The identity, with no slope to speak of."""

        @staticmethod
        def forward(_context: Any, value: torch.Tensor) -> torch.Tensor:
            return value.clone()

        @staticmethod
        def backward(_context: Any, slope: torch.Tensor) -> torch.Tensor:
            return slope * torch.inf

    recipe = replace(NATURAL, options={"dropout": 0.5})

    def sabotage(self: Recipe, classes: int) -> Network:
        made = original(self, classes)
        made.dropout.forward = Steep.apply  # type: ignore[method-assign, assignment]
        network["before"] = {k: v.clone() for k, v in made.state_dict().items() if "head" in k}
        network["made"] = made
        return made

    original = Recipe.network
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recipe, "network", sabotage)
        with pytest.raises(NumericError, match="epoch 1, step 1: the gradient became"):
            train(recipe, colours(48, 0), colours(30, 1), 3, folder=tmp_path)
    after = network["made"].state_dict()
    assert all(torch.equal(after[name], value) for name, value in network["before"].items())


def test_memory_that_ends_is_one_line(tmp_path: Path) -> None:
    """An allocation that torch refuses becomes an OverloadedError, and the checkpoint is kept."""
    pictures, held = colours(48, 0), colours(30, 1)
    with pytest.raises(Stop):
        train(NATURAL, pictures, held, 3, folder=tmp_path, machine=stopping_at(2))
    before = (tmp_path / checkpoint.STATE).read_bytes()
    machine = Machine(tick=lambda _progress: torch.empty(1 << 60, dtype=torch.uint8).sum())  # type: ignore[arg-type, return-value]
    with pytest.raises(OverloadedError, match="out of memory at batch 16: lower it") as caught:
        train(NATURAL, pictures, held, 3, folder=tmp_path, machine=machine)
    assert "\n" not in str(caught.value)
    assert "the last checkpoint is kept" in str(caught.value)
    assert (tmp_path / checkpoint.STATE).read_bytes() == before


def test_errors_of_ours_are_not_disguised() -> None:
    """A bug of the machinery stays what it is."""

    def broken(_progress: float) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        train(NATURAL, colours(48, 0), colours(30, 1), 3, machine=Machine(tick=broken))


@pytest.mark.parametrize(
    ("pictures", "holdout", "classes", "text"),
    [
        (colours(48, 0), colours(30, 1), 2, "labels from 0 to 2 and the network 2 classes"),
        (colours(48, 0), colours(0, 1), 3, "nothing to watch on"),
        (colours(0, 0), colours(30, 1), 3, "nothing to train on"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(
    pictures: Pictures, holdout: Pictures, classes: int, text: str
) -> None:
    """Labels outside the classes and empty sets are named before anything is done."""
    with pytest.raises(InputError, match=text):
        train(NATURAL, pictures, holdout, classes)


def test_pictures_of_another_shape_are_refused() -> None:
    """Grey pictures for a network of three channels, and a transformer of another size."""
    grey = Pictures(torch.zeros(32, 1, 8, 8, dtype=torch.uint8), torch.zeros(32, dtype=torch.long))
    with pytest.raises(InputError, match=r"does not take pictures of \(1, 8, 8\)"):
        train(NATURAL, grey, grey, 3)
    transformer = replace(NATURAL, architecture="vit", options={"size": 32, "depth": 1, "dim": 24})
    with pytest.raises(InputError, match="built for images of 32 x 32"):
        train(transformer, colours(48, 0), colours(30, 1), 3)


def test_patience_ends_a_training_that_no_longer_improves() -> None:
    """With a rate of nothing the second and third epochs are no better, and it stops."""
    lines: list[str] = []
    recipe = replace(NATURAL, epochs=9, peak_rate=1e-9, patience=2)
    train(recipe, colours(48, 0), colours(30, 1), 3, log=lines.append)
    assert [line.split(":")[0] for line in lines] == ["epoch 1/9", "epoch 2/9", "epoch 3/9"]


@pytest.mark.parametrize("recipe", [NATURAL, ROBUST])
def test_the_best_epoch_is_returned(recipe: Recipe, tmp_path: Path) -> None:
    """With select="best" the weights of the epoch with the best held-out accuracy come back."""
    recipe = replace(recipe, epochs=5, ema=0.0, select="best", schedule="constant", peak_rate=0.4)
    seen: list[tuple[float, float]] = []

    def remember(line: str) -> None:
        if line.startswith("epoch") and "clean" in line:
            words = line.replace(",", "").split()
            seen.append(
                (float(words[words.index("clean") + 1]), float(words[words.index("PGD-10") + 1]))
            )

    held = colours(60, 1)
    network = train(recipe, colours(48, 0), held, 3, log=remember)
    found = canary(network, held, eps=recipe.eps)
    column = 1 if recipe.adversarial else 0
    assert found[column] == pytest.approx(max(row[column] for row in seen), abs=6e-4)
    assert len({row[column] for row in seen}) > 1, "all epochs alike prove nothing"
