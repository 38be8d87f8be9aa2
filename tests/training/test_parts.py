"""Who may see which pictures."""

import numpy as np
import pytest

from guard.data import ImageSet, signs
from guard.errors import ConfigError, InputError
from guard.training.parts import divide, pictures
from guard.training.recipes import RECIPES, find, fitted, quick


def tracks(count: int, frames: int) -> ImageSet:
    """`count` tracks of `frames` pictures each, two classes."""
    groups = np.repeat(np.arange(count), frames)
    images = np.zeros((len(groups), 4, 4, 3), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = groups % 256, groups // 256
    return ImageSet(images, groups % 2, ("a", "b"), groups.astype(np.int64))


def test_parts_share_no_picture() -> None:
    """No picture is in two parts, and none is lost."""
    train, test = signs.make(400, seed=1), signs.make(400, seed=2)
    parts = divide(train, test)
    seen = [picture.tobytes() for part in vars(parts).values() for picture in part.images]
    assert len(seen) == len(set(seen)) == 800


def test_tracks_stay_together() -> None:
    """Without a test split, every part has whole tracks only."""
    parts = divide(tracks(300, 6), None)
    groups = [set(part.groups.tolist()) for part in vars(parts).values()]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 300


def test_too_few_pictures_to_calibrate_are_refused() -> None:
    """The error says how many are needed."""
    with pytest.raises(InputError, match="needs about 300"):
        divide(signs.make(100, seed=1), signs.make(50, seed=2))


def test_a_limit_draws_a_fixed_sample() -> None:
    """The same seed draws the same pictures."""
    images = signs.make(40, seed=3)
    first, second = pictures(images, limit=10), pictures(images, limit=10)
    assert len(first) == 10
    assert first.images.equal(second.images)


def test_the_production_models_are_strangers() -> None:
    """In every recipe the two production models and the sentinel differ in architecture and seed,
    and neither is a member."""
    for recipe in RECIPES.values():
        natural = [recipe.sentinel, recipe.rehearsal, recipe.referee]
        assert len({one.architecture for one in natural}) == 3
        assert len({one.seed for one in recipe.classifiers().values()}) == len(recipe.classifiers())


def test_recipes_fit_other_pictures() -> None:
    """Grey pictures, and the quick form, change every classifier of the recipe."""
    changed = fitted(quick(find("default")), channels=1)
    assert {one.channels for one in changed.classifiers().values()} == {1}
    assert max(one.epochs for one in changed.classifiers().values()) <= 8


def test_an_unknown_recipe_is_named() -> None:
    """The error lists the recipes there are."""
    with pytest.raises(ConfigError, match="there are gtsrb"):
        find("imagenet")
