"""Who may see which pictures."""

from dataclasses import replace

import numpy as np
import pytest

from guard.data import ImageSet, concatenate, signs
from guard.errors import ConfigError, InputError
from guard.training.parts import divide, divide_held, enlarged, pictures
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
    with pytest.raises(ConfigError, match="there are cifar10"):
        find("imagenet")


def test_who_is_judged_by_other_pictures_does_not_learn_from_them() -> None:
    """With held pictures every twin leaves the training set, and the other parts come from them."""
    train, held = signs.make(300, seed=1), signs.make(700, seed=2)
    both = concatenate([train, held.subset(slice(0, 40))])
    parts = divide_held(both, held)
    fitted_to = {picture.tobytes() for picture in parts.fit.images}
    assert not fitted_to & {picture.tobytes() for picture in held.images}
    assert len(parts.fit) >= 270
    assert sum(parts.counts().values()) - len(parts.fit) == len(held)


def test_extra_pictures_that_were_held_back_stay_out() -> None:
    """More to train on is added to the fit alone, without twins of any other part."""
    parts = divide(signs.make(300, seed=1), signs.make(400, seed=2))
    extra = concatenate([signs.make(50, seed=3), parts.test.subset(slice(0, 20))])
    more = enlarged(parts, extra)
    assert len(parts.fit) + 40 <= len(more.fit) <= len(parts.fit) + 50
    held = {picture.tobytes() for picture in parts.test.images}
    assert not held & {picture.tobytes() for picture in more.fit.images}


def test_digests_tell_pictures_and_labels_apart() -> None:
    """One changed pixel or label changes its part's digest and no other."""
    parts = divide(signs.make(300, seed=1), signs.make(400, seed=2))
    images = parts.fit.images.copy()
    images[0, 0, 0, 0] ^= 1
    painted = replace(parts, fit=replace(parts.fit, images=images))
    labels = (parts.fit.labels + 1) % len(parts.fit.classes)
    renamed = replace(parts, fit=replace(parts.fit, labels=labels))
    first = parts.digests()
    for other in (painted.digests(), renamed.digests()):
        assert first["fit"] != other["fit"]
        assert {**first, "fit": ""} == {**other, "fit": ""}
