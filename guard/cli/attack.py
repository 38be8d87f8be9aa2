"""`guard attack`: craft adversarial sets."""

import json
import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from guard.cli.connection import connect, connecting
from guard.cli.pictures import read_images
from guard.cli.plain import FILE, FOLDER, note
from guard.errors import ConfigError

LIVE = "HOST:PORT of a server of the inference protocol, guarded or not; needs --model."
OPTION = "Another option of the attack, such as momentum=0.9; an unknown one lists them."


@click.command()
@click.argument("data")
@click.option("--split", help="Split of the data, for example test.")
@click.option("--pack", type=FOLDER, help="Attack a pack: its lead, unless said otherwise.")
@click.option("--member", default="", help="Which member of the pack.")
@click.option("--ensemble", is_flag=True, help="The pack's robust members, averaged.")
@click.option("--adaptive", is_flag=True, help="The pack's ensemble through its whole defence.")
@click.option("--alarms", default=0.01, show_default=True, help="Budget that --adaptive evades.")
@click.option("--checkpoint", type=FOLDER, help="Attack a classifier that guard trained.")
@click.option("--live", metavar="HOST:PORT", help=LIVE)
@connecting
@click.option("--model", default="", help="The live model's name.")
@click.option("--tensor", default="", help="The live model's input; default: its first.")
@click.option("--output", default="", help="The live model's output; default: scores, if any.")
@click.option("--scale", default=1.0, show_default=True, help="What white is to the live model.")
@click.option("--budget", type=click.IntRange(1), help="Pictures sent to the live model at most.")
@click.option("--attack", "name", default="pgd", show_default=True, help="Its name.")
@click.option("--eps", help="Budget: 8/255, 0.5; of a patch its share of the picture.")
@click.option("--norm", help="linf, l2 or patch; default: what the attack is made for.")
@click.option("--steps", type=click.IntRange(1), help="Steps of the attack.")
@click.option("--restarts", type=click.IntRange(1), help="Random restarts.")
@click.option("--queries", type=click.IntRange(1), help="Queries per image of black-box attacks.")
@click.option("-o", "--option", "extra", multiple=True, metavar="NAME=VALUE", help=OPTION)
@click.option("--targeted", help="A class to be taken for, by name or number; or 'random'.")
@click.option("--source", help="Only pictures of this class.")
@click.option(
    "--count", type=click.IntRange(1), default=1000, show_default=True, help="Pictures at most."
)
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=128,
    show_default=True,
    help="Pictures attacked at once.",
)
@click.option(
    "--shard", type=click.IntRange(1), default=512, show_default=True, help="Pictures per file."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:1.")
@click.option("--out", type=FOLDER, required=True, help="Parquet files go here.")
@click.option("--picture", type=FILE, help="Also draw a contact sheet, a PNG file.")
@click.option("--json", "as_json", is_flag=True, help="The summary as JSON.")
@click.pass_context
def attack(ctx: click.Context, /, data: str, **options: Any) -> None:
    """Craft an adversarial set: attacked pictures, how far they moved, what they are read as.

    Writes Parquet in the Hugging Face image layout, which every guard command reads as DATA. The
    whole recipe stands in the files' metadata. A run that was stopped goes on where it was.
    Pictures are rounded to 8 bits before anything is counted.

    Example: guard attack signs --pack models/signs --attack pgd --eps 8/255 --out work/pgd

    Example: guard attack signs --live 127.0.0.1:8001 --model signs --attack hopskipjump
    --queries 1000 --count 20 --out work/live

    Example: guard attack signs --pack models/signs --member sentinel --attack patch --source stop
    --targeted speed_50 --out work/sticker --picture sticker.png
    """
    from guard.evaluation.adversarial import craft, summary
    from guard.evaluation.commission import Asked, commission

    command = _command(ctx)
    asked = Asked(command=command, **{k: options[k] for k in Asked.names() if k in options})
    sources = [options["pack"], options["checkpoint"], options["live"]]
    if sum(source is not None for source in sources) != 1:
        raise ConfigError("give one of --pack, --checkpoint and --live: what is attacked")
    with ExitStack() as stack:
        victim, box = _victim(stack, asked.device, options)
        images = read_images(data, options["split"], limit=_enough(data, asked))
        job = commission(victim, images, Path(data).name, asked, live=box is not None, log=note)
        craft(job.order, victim, options["out"], log=note)
    report = {**summary(job.order, options["out"]), **job.report}
    if box is not None:
        report |= {key: getattr(box, key) for key in ("asked", "blocked", "flagged", "refused")}
        report["budget_spent"] = box.exhausted
    if options["picture"] is not None:
        job.draw(options["out"], options["picture"])
    _tell(report, options["out"], as_json=options["as_json"])


def _victim(stack: ExitStack, device: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """What is attacked, and the live server's counts if it is one."""
    from guard.evaluation import victim

    if options["live"] is not None:
        if not options["model"]:
            raise ConfigError("--live needs --model, the model's name there")
        client = stack.enter_context(connect(options["live"], options))
        more = {key: options[key] for key in ("budget", "tensor", "output", "scale")}
        return victim.live_victim(client, options["live"], options["model"], **more)
    if options["checkpoint"] is not None:
        from guard.networks import fuse
        from guard.training.checkpoint import WEIGHTS, described
        from guard.training.classifier import load_classifier

        folder = options["checkpoint"]
        network = fuse(load_classifier(folder)).to(device)
        classes = (described(folder) or {})["classes"]
        return victim.network_victim(network, folder / WEIGHTS, classes=classes), None
    chosen = {key: options[key] for key in ("member", "ensemble", "adaptive", "seed")}
    budget = options["alarms"]
    return victim.pack_victim(options["pack"], budget=budget, device=device, **chosen), None


def _enough(data: str, asked: Any) -> int | None:
    """How many pictures to read: of drawn signs no more than needed, of everything else all."""
    if data != "signs" or Path(data).exists():
        return None
    return int(asked.count) * (20 if asked.source or asked.targeted else 1)


def _command(ctx: click.Context) -> str:
    """The command line again, without what was left at its default."""
    words = ["guard", "attack"]
    for parameter in ctx.command.params:
        name = parameter.name or ""
        if ctx.get_parameter_source(name) != click.core.ParameterSource.COMMANDLINE:
            continue
        value, flags = ctx.params[name], [*parameter.opts][-1:]
        if isinstance(parameter, click.Argument):
            words.append(str(value))
        elif value is True:
            words += flags
        else:
            for one in value if isinstance(value, tuple) else (value,):
                words += [*flags, str(one)]
    return shlex.join(words)


def _tell(report: dict[str, Any], out: Path, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(report))
        return
    click.echo(f"{out}:")
    for name, value in report.items():
        click.echo(f"  {name.replace('_', ' ')}: {f'{value:.4g}' if value is not None else '-'}")
