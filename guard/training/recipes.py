"""The recipes of the shipped packs and of `guard pack build`: what is trained, and how.

Every pack has robust members (the first is the lead, which answers views), one sentinel, and two
production models that never enter the pack: the detector learns from attacks on `rehearsal` and
is measured on attacks on `referee`, which has another seed and another architecture.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from guard.errors import ConfigError
from guard.training.augment import Augment
from guard.training.ladder import SINGLE, STANDARD
from guard.training.recipe import Recipe

TURNED = Augment(rotation=10, zoom=0.1, shift=0.1, light=0.3, noise=0.03)
NATURAL = Recipe("plain", 16, attacks={}, epochs=10, peak_rate=0.1, grid=4, augment=TURNED)
ROBUST = Recipe(
    "plain",
    24,
    grid=4,
    epochs=24,
    warm=0.1,
    spread=1.0,
    augment=Augment(rotation=8, zoom=0.08, shift=0.08, light=0.3),
)
CLEANER = replace(NATURAL, augment=replace(TURNED, noise=0.0))


@dataclass(frozen=True)
class PackRecipe:
    """What one pack is made of."""

    robust: Mapping[str, Recipe]
    sentinel: Recipe = field(
        # Smoothed, so that its logits stay small and single precision is precise enough.
        default=replace(NATURAL, seed=11, label_smoothing=0.1)
    )
    rehearsal: Recipe = field(default=replace(CLEANER, architecture="residual", width=16, seed=12))
    referee: Recipe = field(default=replace(CLEANER, architecture="broad", width=24, seed=13))
    copies: int = 4  # noisy copies per image
    sigma: float = 0.05  # their standard deviation
    squeezing_asks: str = "sentinel"
    noise_asks: str = "lead"
    attacks: int = 1000  # held-out images that the detector rehearses on
    examined: int = 400  # test images that the measurements attack

    def classifiers(self) -> dict[str, Recipe]:
        """Every classifier to train, by name."""
        others = {"sentinel": self.sentinel, "rehearsal": self.rehearsal, "referee": self.referee}
        return {**self.robust, **others}


def _robust(epochs: int) -> dict[str, Recipe]:
    """Three members that differ in architecture or width, eps, label smoothing and seed."""
    base = replace(ROBUST, epochs=epochs)
    slim = replace(base, architecture="residual", activation="leaky", width=16)
    return {
        "wide": replace(slim, width=20, eps=9 / 255, label_smoothing=0.1, seed=4),
        "broad": replace(
            base, architecture="broad", activation="leaky", label_smoothing=0.1, seed=2
        ),
        "slim": replace(slim, eps=6 / 255, seed=3),
    }


def _german_signs() -> dict[str, Recipe]:
    """Longer, and on pictures changed more: few tracks are soon learned by heart. A wider lead."""
    changes = Augment(rotation=10, zoom=0.12, shift=0.1, light=0.4, noise=0.01, erase=0.25)
    return {name: replace(one, augment=changes, epochs=30) for name, one in _robust(30).items()} | {
        "wide": replace(
            _robust(40)["wide"], width=32, eps=8 / 255, augment=changes, ema=0.997, seed=6
        )
    }


def _small_pictures() -> dict[str, Recipe]:
    """CIFAR-10 on a CPU: single-step training, members that differ in shape, eps and seed."""
    lead = replace(
        SINGLE, architecture="residual", width=32, activation="leaky", epochs=24, seed=21
    )
    return {
        "wide": lead,
        "plain": replace(lead, architecture="plain", epochs=10, eps=10 / 255, seed=22),
        "deep": replace(
            lead,
            architecture="resnet",
            width=16,
            epochs=12,
            options={**lead.options, "depth": 10},
            seed=23,
        ),
    }


def _everyday(seed: int, **changes: Any) -> Recipe:
    """A classifier as everybody trains it on small pictures."""
    return replace(STANDARD, **{"width": 24, "epochs": 10, "seed": seed, **changes})


# "default" is for your own pictures, of 28x28 to 64x64.
RECIPES: dict[str, PackRecipe] = {
    "cifar10": PackRecipe(
        robust=_small_pictures(),
        sentinel=_everyday(31, label_smoothing=0.1),
        rehearsal=_everyday(32, architecture="residual"),
        referee=_everyday(33, architecture="broad", width=32),
    ),
    "default": PackRecipe(robust=_robust(24)),
    "gtsrb": PackRecipe(robust=_german_signs()),
    "signs": PackRecipe(robust=_robust(16)),
}


def quick(recipe: PackRecipe) -> PackRecipe:
    """The same pack in a minute or two, for trying things out: small nets, few epochs."""

    def shorten(one: Recipe) -> Recipe:
        epochs = 6 if one.adversarial else 5
        small = replace(one, width=12, grid=2, epochs=epochs, batch=64, peak_rate=0.1)
        eased = replace(one.augment, rotation=5.0)
        return replace(small, bf16=False, augment=eased, ema=0.9, label_smoothing=0.0)

    return replace(
        recipe,
        robust={name: shorten(one) for name, one in recipe.robust.items()},
        sentinel=shorten(recipe.sentinel),
        rehearsal=shorten(recipe.rehearsal),
        referee=shorten(recipe.referee),
        attacks=100,
        examined=60,
    )


def fitted(recipe: PackRecipe, *, channels: int) -> PackRecipe:
    """The recipe for images with another number of channels."""

    def fit(one: Recipe) -> Recipe:
        return replace(one, channels=channels)

    return replace(
        recipe,
        robust={name: fit(one) for name, one in recipe.robust.items()},
        sentinel=fit(recipe.sentinel),
        rehearsal=fit(recipe.rehearsal),
        referee=fit(recipe.referee),
    )


def find(name: str, *, short: bool = False) -> PackRecipe:
    """A recipe by name, shortened if wanted; raises ConfigError for an unknown one."""
    if name not in RECIPES:
        raise ConfigError(f"no recipe {name!r}; there are {', '.join(RECIPES)}", key="recipe")
    return quick(RECIPES[name]) if short else RECIPES[name]
