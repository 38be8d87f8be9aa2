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


@evaluate.command()
@click.argument("candidate", type=FOLDER)
@click.option("--against", type=FOLDER, required=True, help="The current pack.")
@click.option("--calibration", type=FILE, help="What was calibrated for the current pack.")
@click.option("--reviewed", type=FILE, help="Rows of reviewed suspects that nothing learned from.")
@click.option("--data", help="Pictures for adaptive attacks, unseen by all; needs --victim.")
@click.option("--split", default="test", show_default=True, help="Of the data; '' for all.")
@click.option("--victim", type=FOLDER, help="Classifier that the adaptive attacks are made on.")
@click.option("--count", default=50, show_default=True, help="Pictures attacked.")
@click.option("--steps", default=20, show_default=True, help="Of an adaptive attack.")
@click.option(
    "--head",
    type=click.Choice(["upstream", "alone", "both"]),
    default="both",
    show_default=True,
    help="Whose rows may refuse: upstream where a classifier answers, alone where none does.",
)
@click.option("--tolerance", default=1.0, show_default=True, help="Points.")
@click.option("--unsigned", is_flag=True, help="For a candidate that was refused before.")
@click.option("--out", type=FILE, help="The report as a page: FILE.html.")
@click.option("--json", "as_json", is_flag=True)
def gate(
    candidate: Path,
    against: Path,
    calibration: Path | None,
    reviewed: Path | None,
    data: str | None,
    split: str,
    victim: Path | None,
    count: int,
    steps: int,
    head: str,
    tolerance: float,
    unsigned: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Compare a candidate pack with the current one; exit 1 where it is worse anywhere.

    Both detectors are shown the current pack's frozen hold-out: clean, corrupted and attacked
    pictures, whole and class by class. With --data and --victim, adaptive attacks on both sides
    too. Every row that is worse beyond tolerance is named. All attacks together may lose
    --tolerance points, a single attack or corruption twice, a single class five times as many.

    Example: guard evaluate gate packs/cifar10-r1 --against models/cifar10 --out gate.html
    """
    from guard.calibration import load
    from guard.evaluation.admission import admit, reviewed_rows
    from guard.evaluation.gatepage import page
    from guard.evaluation.gatereport import markdown
    from guard.pack import Pack

    if (data is None) != (victim is None):
        raise click.UsageError("--data and --victim belong together")
    new, old = Pack.load(candidate, check_pin=not unsigned), Pack.load(against)
    own = load(calibration) if calibration else {}
    struck = []
    if data is not None and victim is not None:
        pictures = read_images(data, split or None, limit=count)
        struck = _struck(old, new, own, victim, pictures, steps)
    rows, answered = reviewed_rows(reviewed) if reviewed else (None, None)
    report = admit(
        new, old, calibrations=own, reviewed=rows, answered=answered, adaptive=struck,
        tolerance=tolerance / 100, heads=("upstream", "alone") if head == "both" else (head,),
    )  # fmt: skip
    if out:
        out.write_text(page(report, title=f"{new.name} against {old.name}"))
        note(f"{out}: the report")
    click.echo(json.dumps(report.record(), indent=1) if as_json else markdown(report))
    for reason in report.reasons:
        note(f"refused: {reason}")
    if not report.passed:
        raise SystemExit(1)


def _struck(old: Any, new: Any, own: Any, victim: Path, pictures: Any, steps: int) -> Any:
    """Adaptive attacks on both packs."""
    import torch

    from guard.evaluation.struck import strike_both
    from guard.networks import fuse
    from guard.training.classifier import load_classifier

    production = fuse(load_classifier(victim))
    images, labels = torch.from_numpy(pictures.pixels()), torch.from_numpy(pictures.labels)
    return strike_both(old, new, production, images, labels, own=own, steps=steps, log=note)


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
