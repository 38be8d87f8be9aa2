"""`guard evaluate`: what stands under attack."""

import json
from pathlib import Path
from typing import Any

import click

from guard.cli.pictures import read_images
from guard.cli.plain import FILE, FOLDER, note


@click.group()
def evaluate() -> None:
    """Measure classifiers under attack (needs the extra `train`)."""


@evaluate.command()
@click.argument("folders", type=FOLDER, nargs=-1, required=True)
@click.option("--data", required=True, help="Pictures no classifier was trained on.")
@click.option("--split", default="test", show_default=True, help="Of the data; '' for all.")
@click.option("--eps", default="8/255", show_default=True, help="L-inf budget.")
@click.option("--columns", default="fgsm,pgd-20,cw-50,apgd", show_default=True)
@click.option("--count", default=1000, show_default=True, help="Pictures attacked.")
@click.option("--limit", type=int, help="Pictures used at most.")
@click.option("--ensemble", is_flag=True, help="A row for their mean too.")
@click.option("--seed", default=0, show_default=True, help="Which pictures are drawn.")
@click.option("--kept", type=FILE, help="JSON file of finished cells; a stopped run goes on.")
@click.option("--json", "as_json", is_flag=True)
def classifiers(
    folders: tuple[Path, ...],
    data: str,
    split: str,
    eps: str,
    columns: str,
    count: int,
    limit: int | None,
    ensemble: bool,
    seed: int,
    kept: Path | None,
    as_json: bool,
) -> None:
    """Robust accuracy of classifiers, with 95% intervals.

    FOLDERS are what `guard train` left there, or packs: then their robust members, and with
    --ensemble the mean of these. Columns: fgsm, pgd-N, cw-N (margin loss), apgd, autoattack. Clean
    accuracy is on all pictures.

    Example: guard evaluate classifiers work/ladder/nfgsm --data torchvision:cifar10
    --columns pgd-20,autoattack --count 1000

    Example: guard evaluate classifiers models/signs --data signs --ensemble --eps 4/255
    """
    from guard.evaluation.robustness import Averaged
    from guard.evaluation.standing import Column, markdown, table
    from guard.threat import ThreatModel
    from guard.training.parts import pictures

    threat = ThreatModel.parse(f"linf {eps}")
    models = {name: model for folder in folders for name, model in _models(folder).items()}
    if ensemble:
        models["ensemble"] = Averaged(list(models.values()))
    chosen = pictures(read_images(data, split or None, limit=limit))
    images, labels = chosen.shuffled(seed)
    wanted = [Column("clean", len(labels), threat)]
    wanted += [Column(name, min(count, len(labels)), threat) for name in columns.split(",") if name]
    found = table(models, images, labels, wanted, kept=kept, log=note)
    if as_json:
        cells = {
            name: {key: [cell.share, *cell.interval, cell.count] for key, cell in row.items()}
            for name, row in found.items()
        }
        click.echo(json.dumps(cells, indent=1))
    else:
        click.echo(markdown(found))


def _models(folder: Path) -> dict[str, Any]:
    """The classifiers of a folder: a pack's robust members, or the one that was trained there."""
    from guard.defenses.load import load_evidence
    from guard.networks import fuse
    from guard.pack import Pack
    from guard.training.classifier import load_classifier

    if not (folder / "manifest.json").exists():
        return {folder.name: fuse(load_classifier(folder))}
    pack = Pack.load(folder)
    robust = [member.name for member in pack.members if member.role == "robust"]
    members = load_evidence(pack).members
    return {f"{folder.name} {name}": members[name] for name in robust}
