"""Members in folders, trained together into other folders; `load_classifier` reads them again."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import nn

from guard.errors import ConfigError, InputError
from guard.networks import Network, fuse
from guard.training import checkpoint
from guard.training.classifier import Log, Machine, load_classifier
from guard.training.diverse import Together, fine_tuning, joint, train_together
from guard.training.pictures import Pictures
from guard.training.recipe import Recipe
from guard.training.single import changed


def order(
    lead: Path,
    *,
    epochs: int = 4,
    passes: float | None = None,
    rate: float | None = None,
    changes: Sequence[str] = (),
    scratch: bool = False,
    **terms: Any,
) -> Together:
    """How members learn together, after the lead's recipe; `terms` are fields of `Together`.

    passes: as many epochs as fit into so many passes per picture and member; rate: peak learning
    rate, by default 0.05 or, from scratch, the recipe's; changes: as in `guard train classifier`.
    """
    recipe = replace(joint(_recipe(lead)), epochs=epochs)
    if not scratch:
        recipe = fine_tuning(recipe, epochs=epochs)
    if rate is not None:
        recipe = replace(recipe, peak_rate=rate)
    for change in changes:
        recipe = changed(recipe, change)
    together = Together(joint(recipe), **terms)
    return together if passes is None else together.within(passes)


def read(folders: Sequence[Path]) -> dict[str, nn.Module]:
    """Finished classifiers by the name of their folder, fused, to be measured."""
    names = _names(folders)
    return {name: fuse(load_classifier(one)) for name, one in zip(names, folders, strict=True)}


def ensemble(
    together: Together,
    folders: Sequence[Path],
    fit: Pictures,
    holdout: Pictures,
    classes: int,
    *,
    out: Path,
    scratch: bool = False,
    machine: Machine | None = None,
    log: Log = lambda _line: None,
) -> dict[str, Network]:
    """Members in `folders`, trained together into `out/NAME/`; done already, they are read there.

    scratch: start from fresh weights of the same recipes. Each member keeps its recipe, so that
    `load_classifier` knows its shape; `about` says how it learned together.
    """
    names = _names(folders)
    if out.resolve() in {folder.resolve().parent for folder in folders}:
        raise ConfigError(f"{out} holds the members themselves: give another folder")
    told = {"members": names, "scratch": scratch}
    about = {"pictures": len(fit), "together": asdict(together), **told}
    if all(_is_done(out / name, together, told) for name in names):
        log("already trained together")
        return {name: load_classifier(out / name) for name in names}
    recipes, members = {}, {}
    for name, folder in zip(names, folders, strict=True):
        trained = load_classifier(folder)
        recipes[name] = _recipe(folder)
        members[name] = recipes[name].network(classes) if scratch else trained
    made = train_together(
        together, members, fit, holdout, classes, folder=out, machine=machine, log=log
    )
    for name, network in made.items():
        checkpoint.save_classifier(out / name, network, recipes[name], classes=classes, about=about)
    (out / "checkpoint.safetensors").unlink(missing_ok=True)
    return made


def _recipe(folder: Path) -> Recipe:
    found = checkpoint.described(folder)
    if found is None:
        raise InputError(f"{folder} holds no finished classifier")
    return Recipe.read(found["recipe"])


def _names(folders: Sequence[Path]) -> list[str]:
    names = [folder.resolve().name for folder in folders]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"two members are called {min(twice)!r}: give folders of different names")
    return names


def _is_done(folder: Path, together: Together, told: Mapping[str, Any]) -> bool:
    """Whether the folder holds what this very training left."""
    about = (checkpoint.described(folder) or {}).get("about", {})
    if "together" not in about or any(about.get(key) != value for key, value in told.items()):
        return False
    return Together.read(about["together"]) == together
