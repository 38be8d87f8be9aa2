"""`guard evaluate`: what stands under attack."""

import json
from pathlib import Path

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
    ensemble: bool,
    seed: int,
    kept: Path | None,
    as_json: bool,
) -> None:
    """Robust accuracy of classifiers that `guard train` left in FOLDERS, with 95% intervals.

    Columns: fgsm, pgd-N, cw-N (margin loss), apgd, autoattack. Clean accuracy is on all pictures.

    Example: guard evaluate classifiers work/ladder/nfgsm --data torchvision:cifar10
    --columns pgd-20,autoattack --count 1000
    """
    from guard.evaluation.robustness import Averaged
    from guard.evaluation.standing import Column, markdown, table
    from guard.networks import fuse
    from guard.threat import ThreatModel
    from guard.training.classifier import load_classifier
    from guard.training.parts import pictures

    threat = ThreatModel.parse(f"linf {eps}")
    models = {folder.name: fuse(load_classifier(folder)) for folder in folders}
    if ensemble:
        models["ensemble"] = Averaged(list(models.values()))
    chosen = pictures(read_images(data, split or None, limit=None))
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
