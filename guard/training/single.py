"""One classifier on its own: a recipe by name, changed as wanted, trained, exported, reported."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from guard.errors import ConfigError, InputError
from guard.networks import ARCHITECTURES, parameters
from guard.training import journal
from guard.training.augment import Augment
from guard.training.classifier import Log, Machine
from guard.training.ensemble import classifier
from guard.training.export import export_classifier
from guard.training.ladder import LADDER
from guard.training.parts import Parts, pictures
from guard.training.pictures import accuracy
from guard.training.recipe import Recipe
from guard.training.recipes import find


@dataclass(frozen=True)
class Order:
    """What to train: a ladder recipe, or a member of a pack's recipe; with changes.

    changes: `field=value` texts, fields of the recipe, `augment.FIELD` or `options.NAME`; passes:
    as many epochs as fit into so many forward and backward passes per picture; private: noise,
    clip and delta of DP-SGD.
    """

    recipe: str
    member: str = "wide"
    quick: bool = False
    changes: Sequence[str] = ()
    passes: float | None = None
    private: tuple[float, float, float] | None = None

    def settle(self, *, channels: int) -> tuple[str, Recipe]:
        """The classifier's name and its recipe; ConfigError names what is wrong."""
        name, recipe = self._found()
        recipe = replace(recipe, channels=channels)
        for change in self.changes:
            try:
                recipe = changed(recipe, change)
            except InputError as error:
                raise ConfigError(f"{change}: {error}", key="set") from error
        if recipe.architecture not in ARCHITECTURES:
            known = f"there are {', '.join(ARCHITECTURES)}"
            raise ConfigError(f"no architecture {recipe.architecture!r}; {known}", key="set")
        return name, recipe if self.passes is None else recipe.within(self.passes)

    def _found(self) -> tuple[str, Recipe]:
        if self.recipe in LADDER:
            return self.recipe, LADDER[self.recipe]
        try:
            chosen = find(self.recipe, short=self.quick).classifiers()
        except ConfigError as error:
            raise ConfigError(f"{error}, {', '.join(LADDER)}", key="recipe") from None
        if self.member not in chosen:
            raise ConfigError(
                f"no member {self.member!r}; there are {', '.join(chosen)}", key="member"
            )
        return self.member, chosen[self.member]


def changed(recipe: Recipe, change: str) -> Recipe:
    """The recipe with one `field=value` set; the value is read as the field's present type.

    Raises ConfigError for an unknown field or an unreadable value, InputError for one that no
    recipe may have.
    """
    key, equals, text = change.partition("=")
    head, _, tail = key.partition(".")
    if not equals:
        raise ConfigError(f"{change!r} is not like eps=8/255", key="set")
    if head == "augment" and tail:
        inner = _value(recipe.augment, tail, text, key)
        return replace(recipe, augment=replace(recipe.augment, **{tail: inner}))
    if head == "options" and tail:
        return replace(recipe, options={**recipe.options, tail: _guess(text)})
    if tail or head in ("augment", "options"):
        raise ConfigError(f"{key!r} is not like augment.flip or options.depth", key="set")
    if head == "attacks":
        return replace(recipe, attacks=_weights(text, key))
    return replace(recipe, **{head: _value(recipe, head, text, key)})


def train_one(parts: Parts, order: Order, *, out: Path, machine: Machine, log: Log) -> Path:
    """Train, write `out/NAME/` with curves, and as ONNX: `images` [N, C, H, W] to `logits`."""
    name, recipe = order.settle(channels=parts.fit.shape[0])
    fit, held = pictures(parts.fit), pictures(parts.rehearse)
    classes = len(parts.fit.classes)
    if order.private is None:
        network = classifier(name, recipe, fit, held, classes, work=out, machine=machine, log=log)
    else:
        from guard.training.private import Private, private_classifier  # needs Opacus

        budget = Private(*order.private)
        network = private_classifier(
            name, recipe, fit, held, classes, budget, out=out, machine=machine, log=log
        )
    path = out / f"{name}.onnx"
    if machine.team.leads:
        network = network.cpu()
        export_classifier(network, path, shape=parts.fit.shape)
        if (out / name / "log.csv").exists():
            journal.draw([out / name / "log.csv"], out / name / "curves.png")
        right = accuracy(network, pictures(parts.test))
        log(f"{name}: {parameters(network)} parameters, {100 * right:.1f}% of the test pictures")
    return path


def _value(owner: Recipe | Augment, name: str, text: str, key: str) -> Any:
    """`text` in the type that the field has now."""
    if name not in {field.name for field in fields(owner)}:
        known = ", ".join(field.name for field in fields(owner))
        raise ConfigError(f"a recipe has no {key}; there are {known}", key="set")
    present = getattr(owner, name)
    try:
        if isinstance(present, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(present, tuple):
            parts = tuple(float(Fraction(part)) for part in text.split(","))
            if len(parts) != len(present):
                raise ValueError(f"{len(present)} numbers are needed")
            return parts
        if isinstance(present, float):
            return float(Fraction(text))
        return type(present)(text)
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"{key} cannot be {text!r}", key="set") from error


def _weights(text: str, key: str) -> dict[str, float]:
    """`pgd:3,cw:1` as weights; nothing means natural training."""
    try:
        pairs = [part.partition(":") for part in text.split(",") if part]
        return {name: float(weight or 1) for name, _, weight in pairs}
    except ValueError as error:
        raise ConfigError(f"{key} is not like pgd:3,cw:1", key="set") from error


def _guess(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)
