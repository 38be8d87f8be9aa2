"""`guard train ensemble` and `guard evaluate transfer`: members that learn and fall together."""

import json
from pathlib import Path
from typing import Any

import click

from guard.cli.pictures import read_images, read_parts
from guard.cli.plain import FILE, FOLDER, note

AGAINST = "Examples against the mean of the members, or each against its own."


@click.command("ensemble")
@click.argument("data")
@click.option(
    "--members", type=FOLDER, multiple=True, required=True, help="A trained one's folder."
)
@click.option(
    "--diversity", type=click.Choice(["none", "adp", "gal"]), default="none", show_default=True
)
@click.option("--against", type=click.Choice(["ensemble", "own"]), default="ensemble", help=AGAINST)
@click.option("--alpha", default=2.0, show_default=True, help="ADP: weight of the entropy.")
@click.option("--beta", default=0.5, show_default=True, help="ADP: weight of the log volume.")
@click.option("--gamma", default=0.5, show_default=True, help="GAL: weight of the alignment.")
@click.option("--epochs", default=4, show_default=True)
@click.option("--passes", type=float, help="Epochs for so many passes per picture, instead.")
@click.option("--rate", type=float, help="Peak learning rate; default: 0.05, fresh ones their own.")
@click.option("--set", "changes", multiple=True, metavar="FIELD=VALUE", help="Change the recipe.")
@click.option("--scratch", is_flag=True, help="Fresh weights of the same recipes.")
@click.option("--out", type=FOLDER, required=True, help="A folder per member goes here.")
@click.option("--limit", type=int, help="Pictures used at most.")
@click.option("--held", help="Judge by these pictures; their twins in DATA are left out.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:1.")
def ensemble(data: str, members: tuple[Path, ...], out: Path, **options: Any) -> None:
    """Train members together, for diversity; resumes after the last whole epoch.

    The first member's recipe says how examples are made and pictures are changed; --set changes
    it. The same DATA and --limit as the members were trained with keep the held-out pictures held
    out. Finished members are read again by every command that reads a trained classifier.

    Example: guard train ensemble signs --members work/signs/wide --members work/signs/slim
    --diversity adp --epochs 4 --out work/together
    """
    from guard.training.classifier import Machine
    from guard.training.members import ensemble as run
    from guard.training.members import order
    from guard.training.parallel import local_device
    from guard.training.parts import pictures

    keys = ("diversity", "against", "alpha", "beta", "gamma")
    terms = {key: options[key] for key in keys}
    plan = {key: options[key] for key in ("epochs", "passes", "rate", "changes", "scratch")}
    together = order(members[0], **plan, **terms)
    parts = read_parts(data, options["limit"], held=options["held"])
    fit, held, classes = pictures(parts.fit), pictures(parts.rehearse), len(parts.fit.classes)
    machine = Machine(device=local_device(options["device"]))
    scratch = options["scratch"]
    made = run(
        together, members, fit, held, classes, out=out, scratch=scratch, machine=machine, log=note
    )
    for name in made:
        click.echo(str(out / name))


@click.command("transfer")
@click.argument("folders", type=FOLDER, nargs=-1, required=True)
@click.option("--data", required=True, help="Pictures no classifier was trained on.")
@click.option("--split", default="test", show_default=True, help="Of the data; '' for all.")
@click.option("--eps", default="8/255", show_default=True, help="L-inf budget.")
@click.option("--attack", default="pgd-20", show_default=True, help="pgd-N, cw-N, fgsm or apgd.")
@click.option("--count", default=1000, show_default=True, help="Pictures to choose from.")
@click.option("--seed", default=0, show_default=True, help="Which pictures are drawn.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:1.")
@click.option("--picture", type=FILE, help="Also draw a heat map, a PNG file.")
@click.option("--json", "as_json", is_flag=True)
def transfer(
    folders: tuple[Path, ...],
    data: str,
    split: str,
    eps: str,
    attack: str,
    count: int,
    seed: int,
    device: str,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Who stands when another is attacked: classifiers in FOLDERS and their mean, as a matrix.

    Only pictures that every member has right are attacked; the diagonal is white-box.

    Example: guard evaluate transfer work/signs/wide work/signs/slim --data signs --eps 8/255
    --count 500 --picture transfer.png
    """
    from guard.evaluation.standing import Column
    from guard.evaluation.transfer import transfer as measure
    from guard.threat import ThreatModel
    from guard.training.members import read
    from guard.training.parallel import local_device
    from guard.training.parts import pictures

    at = local_device(device)
    column = Column(attack, count, ThreatModel.parse(f"linf {eps}"))
    members = {name: network.to(at) for name, network in read(folders).items()}
    limit = count if data == "signs" else None
    images, labels = pictures(read_images(data, split or None, limit=limit)).to(at).shuffled(seed)
    found = measure(
        members, images[:count], labels[:count], column.attack(seed), title=column.title, log=note
    )
    if picture:
        found.picture().save(picture)
    click.echo(json.dumps(found.record(), indent=1) if as_json else found.markdown())
