"""Training one classifier."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from guard.errors import InputError
from guard.training.classifier import (
    Pictures,
    Recipe,
    accuracy,
    augment,
    canary,
    nfgsm,
    train,
)

RECIPE = Recipe(
    "plain", 4, method="natural", epochs=3, batch=16, peak_rate=0.1, ema=0.8, bf16=False,
    rotation=0.0, zoom=0.0, shift=0.0, light=0.0,
)  # fmt: skip


def colours(count: int, seed: int) -> Pictures:
    """Pictures whose strongest channel is their class; easy, and quick to learn."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=generator)
    images = torch.randint(0, 90, (count, 3, 8, 8), generator=generator)
    images[torch.arange(count), labels] += 120
    return Pictures(images.to(torch.uint8), labels)


def test_training_learns() -> None:
    """Three short epochs are enough for an easy task."""
    network = train(RECIPE, colours(192, 0), colours(60, 1), 3)
    assert accuracy(network, colours(90, 2)) > 0.9


def test_adversarial_training_stands_where_natural_training_falls() -> None:
    """N-FGSM leaves more standing under PGD-10 than natural training of the same length."""
    robust = replace(RECIPE, method="nfgsm", eps=0.12, warm=0.2, epochs=6)
    natural = replace(RECIPE, epochs=6)
    stands = [
        canary(train(one, colours(256, 0), colours(60, 1), 3), colours(90, 2), eps=0.12)[1]
        for one in (robust, natural)
    ]
    assert stands[0] >= stands[1]


def test_the_same_recipe_gives_the_same_weights() -> None:
    """Everything random comes from the recipe's seed."""
    first, second = (
        train(RECIPE, colours(64, 0), colours(30, 1), 3).state_dict() for _ in range(2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_training_resumes_where_it_stopped(tmp_path: Path) -> None:
    """A run that is cut off after an epoch and continued ends with the weights of a whole run."""
    pictures, held = colours(64, 0), colours(30, 1)
    whole = train(RECIPE, pictures, held, 3).state_dict()
    lines: list[str] = []

    def stop(line: str) -> None:
        lines.append(line)
        if line.startswith("epoch 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(RECIPE, pictures, held, 3, folder=tmp_path, log=stop)
    resumed = train(RECIPE, pictures, held, 3, folder=tmp_path, log=lines.append).state_dict()
    assert [line.split("/")[0] for line in lines] == ["epoch 1", "epoch 2", "epoch 3"]
    assert all(torch.allclose(whole[name], resumed[name]) for name in whole)


def test_another_recipes_checkpoint_is_refused(tmp_path: Path) -> None:
    """A checkpoint never continues under a recipe that did not make it."""
    train(replace(RECIPE, epochs=1), colours(32, 0), colours(30, 1), 3, folder=tmp_path)
    with pytest.raises(InputError, match="another recipe"):
        train(RECIPE, colours(32, 0), colours(30, 1), 3, folder=tmp_path)


def test_nfgsm_steps_without_clipping_to_the_ball() -> None:
    """The example may leave the eps-ball, by up to the spread of the noise, but not [0, 1]."""
    network = RECIPE.network(3).eval()
    pictures = colours(32, 3)
    images = pictures.pixels(torch.arange(32))
    generator = torch.Generator().manual_seed(0)
    moved = nfgsm(network, images, pictures.labels, eps=0.1, spread=2.0, generator=generator)
    size = (moved - images).abs().max()
    assert 0.1 < size <= 0.3 + 1e-6
    assert 0 <= moved.min() <= moved.max() <= 1


def test_augmented_pictures_are_pictures() -> None:
    """Shape and range are kept, and without options nothing but interpolation happens."""
    images = colours(8, 0).pixels(torch.arange(8))
    generator = torch.Generator().manual_seed(0)
    assert torch.allclose(augment(images, RECIPE, generator), images, atol=1e-5)
    changed = augment(images, Recipe("plain", 4, noise=0.1), generator)
    assert changed.shape == images.shape
    assert 0 <= changed.min() <= changed.max() <= 1


def test_a_collapse_is_undone() -> None:
    """When PGD accuracy falls by ten points the last good weights come back."""
    calls = iter([(0.9, 0.8), (0.9, 0.2), (0.9, 0.8)])
    lines: list[str] = []
    robust = replace(RECIPE, method="nfgsm", eps=0.05)
    import guard.training.classifier as module

    original = module.canary
    module.canary = lambda *_args, **_options: next(calls)  # type: ignore[assignment]
    try:
        train(robust, colours(32, 0), colours(30, 1), 3, log=lines.append)
    finally:
        module.canary = original
    assert sum("last good weights restored" in line for line in lines) == 1
