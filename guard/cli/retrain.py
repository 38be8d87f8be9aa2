"""`guard retrain`: reviewed suspects become a candidate pack, which nobody serves yet."""

import getpass
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from guard.cli.connection import connect, connecting
from guard.cli.plain import FILE, FOLDER, note


@click.command()
@click.option("--pack", type=FOLDER, required=True, help="The pack in service: the parent.")
@click.option("--out", type=FOLDER, required=True, help="The candidate's folder, a new one.")
@click.option("--export", "exports", type=FILE, multiple=True, help="Suspects that were exported.")
@click.option("--at", "target", metavar="HOST:PORT", help="Or the gateway that keeps them.")
@connecting
@click.option("--model", help="Whose suspects; needed where there are several models'.")
@click.option("--calibration", type=FILE, help="MODEL.npz of `guard calibrate`, where it is used.")
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def retrain(pack: Path, out: Path, **options: Any) -> None:
    """Train the pack's detector on reviewed suspects; the graph stays as it is.

    The result is a pack of its own, compared with its parent on pictures that neither learned
    from. One that is worse anywhere is put aside as OUT.refused, and the exit status is 1.

    Example: guard retrain --pack models/gtsrb --export reviewed.parquet --out packs/gtsrb-r1
    """
    from guard.pack import Pack
    from guard.training.retrain import Order
    from guard.training.retrain import retrain as run

    if bool(options["exports"]) == bool(options["target"]):
        raise click.UsageError("give --export or --at")
    order = Order(
        Pack.load(pack),
        out,
        model=options["model"],
        seed=options["seed"],
        trained_by=getpass.getuser(),
    )
    made = run(_cases(options), order, log=note)
    told = {
        "candidate": str(made.folder),
        "digest": made.digest,
        "passed": made.gate.passed,
        "reasons": list(made.gate.reasons),
        **made.retrained["counts"],
        "seconds": dict(made.seconds),
    }
    if options["as_json"]:
        click.echo(json.dumps(told))
    else:
        for line in made.gate.reasons:
            click.echo(line)
        word = "passed the gate" if made.gate.passed else "refused by the gate"
        click.echo(f"{made.folder}: {word}")
    if not made.gate.passed:
        raise SystemExit(1)


def _cases(options: Any) -> Iterator[Any]:
    from guard.suspects.record import Filter
    from guard.training.cases import from_export, from_gateway

    for path in options["exports"]:
        yield from from_export(path)
    if options["target"]:
        with closing(connect(options["target"], options)) as client:
            wanted = Filter(model=options["model"], state="agreed")
            yield from from_gateway(client.suspects.export(wanted))
