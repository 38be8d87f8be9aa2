"""Trains every classifier of a pack, one after the other; finished ones are kept and reused."""

from pathlib import Path

from guard.defenses.evidence import EvidenceGraph, Member, default_defenses
from guard.networks import Network, fuse
from guard.training import checkpoint
from guard.training.classifier import Log, Machine, load_classifier, train
from guard.training.pictures import Pictures
from guard.training.recipe import Recipe
from guard.training.recipes import PackRecipe


def classifier(
    name: str,
    recipe: Recipe,
    fit: Pictures,
    holdout: Pictures,
    classes: int,
    *,
    work: Path,
    log: Log,
    machine: Machine | None = None,
) -> Network:
    """The trained, fused network `name`: from `work` when it is finished there, else trained."""
    folder, machine = work / name, machine or Machine()
    if _finished(folder, recipe, fit, classes):
        if machine.team.leads:
            log(f"{name}: already trained")
        network = load_classifier(folder)
    else:
        network = _trained(name, recipe, fit, holdout, classes, folder, machine, log)
    fuse(network)
    return network.requires_grad_(False)


def _finished(folder: Path, recipe: Recipe, fit: Pictures, classes: int) -> bool:
    """Whether the folder holds this recipe's classifier of as many pictures and classes."""
    found = checkpoint.described(folder)
    if not found or found["classes"] != classes or found["about"].get("pictures") != len(fit):
        return False
    return Recipe.read(found["recipe"]) == Recipe.read(recipe.stored())


def _trained(
    name: str,
    recipe: Recipe,
    fit: Pictures,
    holdout: Pictures,
    classes: int,
    folder: Path,
    machine: Machine,
    log: Log,
) -> Network:
    """Train and store; several processes train together and the lead stores."""

    def say(line: str) -> None:
        log(f"{name}: {line}")

    team = machine.team
    if team.leads:
        say(f"training {recipe.architecture} for {recipe.epochs} epochs")
    network = train(
        recipe, fit, holdout, classes, folder=folder, machine=machine, log=say
    )  # fmt: skip
    if team.leads:
        about = {"pictures": len(fit)}
        checkpoint.save_classifier(folder, network, recipe, classes=classes, about=about)
        (folder / checkpoint.STATE).unlink(missing_ok=True)
    team.wait()  # whoever starts next finds it finished
    return network


def networks(
    recipe: PackRecipe, fit: Pictures, holdout: Pictures, classes: int, *, work: Path, log: Log
) -> dict[str, Network]:
    """Every classifier of the recipe by name, trained and fused."""
    return {
        name: classifier(name, one, fit, holdout, classes, work=work, log=log)
        for name, one in recipe.classifiers().items()
    }


def compose(recipe: PackRecipe, trained: dict[str, Network], classes: int) -> EvidenceGraph:
    """The evidence graph of the recipe's members and defences, in eval mode."""
    roles = {**dict.fromkeys(recipe.robust, "robust"), "sentinel": "sentinel"}
    members = [
        Member(
            name=name,
            role=role,
            network=trained[name],
            architecture=recipe.classifiers()[name].architecture,
            arguments=recipe.classifiers()[name].arguments(classes),
        )
        for name, role in roles.items()
    ]
    defenses = default_defenses(
        squeezing=recipe.squeezing_asks, noise=recipe.noise_asks, sigma=recipe.sigma
    )
    return EvidenceGraph(members, defenses, copies=recipe.copies).eval()
