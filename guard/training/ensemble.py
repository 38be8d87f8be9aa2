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
    folder = work / name
    about = {"pictures": len(fit)}
    found = checkpoint.described(folder)
    if found and Recipe.read(found["recipe"]) == recipe:
        log(f"{name}: already trained")
        network = load_classifier(folder)
    else:
        log(f"{name}: training {recipe.architecture} for {recipe.epochs} epochs")
        network = train(
            recipe,
            fit,
            holdout,
            classes,
            folder=folder,
            machine=machine,
            log=lambda line: log(f"{name}: {line}"),
        )
        checkpoint.save_classifier(folder, network, recipe, classes=classes, about=about)
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    fuse(network)
    return network.requires_grad_(False)


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
