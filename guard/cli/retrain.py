"""`guard retrain`: reviewed suspects become a candidate pack, which nobody serves yet."""

import getpass
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import click

from guard.cli.connection import connect, connecting
from guard.cli.pictures import read_images
from guard.cli.plain import FILE, FOLDER, note
from guard.errors import ConfigError, InputError

Command = TypeVar("Command", bound=Callable[..., Any])
LIMITS = {
    "quorum": "Reviewers who have to agree.",
    "dissent": "Reviewers who may have said otherwise.",
    "per-client-day": "Suspects of one client on one day, at most.",
    "per-client": "Share of the new rows that one client may give.",
    "outliers": "Deviations from the median that are too many; 0: no filter.",
    "fewest": "Suspects left without which nothing is learned.",
}


def limited(command: Command) -> Command:
    """Options for what may be learned from; their defaults are `Limits`'."""
    for name, text in reversed(LIMITS.items()):
        kind = float if name in ("per-client", "outliers") else int
        command = click.option(f"--{name}", type=kind, help=text)(command)
    return command


@click.command()
@click.option("--pack", type=FOLDER, required=True, help="The pack in service: the parent.")
@click.option("--out", type=FOLDER, required=True, help="The candidate's folder, a new one.")
@click.option("--export", "exports", type=FILE, multiple=True, help="Suspects that were exported.")
@click.option("--at", "target", metavar="HOST:PORT", help="Or the gateway that keeps them.")
@connecting
@click.option("--model", help="Whose suspects; needed where there are several models'.")
@click.option("--calibration", type=FILE, help="MODEL.npz of `guard calibrate`, where it is used.")
@click.option("--when", "condition", help="Only if so many wait: reviewed>=200,benign>=50.")
@click.option("--fresh", help="Pictures to attack here, on top; goes with --victim.")
@click.option("--split", default="train", show_default=True, help="Of --fresh.")
@click.option("--victim", type=FOLDER, help="What `guard train classifier` left: it is attacked.")
@click.option("--fresh-count", default=500, show_default=True, help="Pictures of --fresh.")
@limited
@click.option("--share", type=float, help="Of the weight that the new rows may carry.")
@click.option("--drift", type=float, help="How far the weights may move, relative.")
@click.option("--steps", type=click.IntRange(1), help="Of training.")
@click.option("--private-noise", type=float, help="DP-SGD: noise, in clips (extra `private`).")
@click.option("--private-clip", default=1.0, show_default=True, help="DP-SGD: longest gradient.")
@click.option("--private-delta", default=1e-5, show_default=True, help="DP-SGD: the bound's delta.")
@click.option(
    "--head",
    type=click.Choice(["both", "upstream", "alone"]),
    default="both",
    show_default=True,
    help="Which may not be worse: with the upstream's answer, without, or both.",
)
@click.option("--seed", default=0, show_default=True)
@click.option("--work", type=FOLDER, help="Keeps what takes long; default: work/retrain.")
@click.option("--metrics-file", type=FILE, help="For node_exporter's textfile collector.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def retrain(pack: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Train a pack's detector on reviewed suspects; all else of it stays as it is.

    The result is a pack of its own, signed with your key, that passed the gate: it was compared
    with its parent on pictures that neither learned from. One that is worse anywhere is put aside
    as OUT.refused, unsigned, and the exit status is 1.

    Example: guard retrain --pack models/gtsrb --export reviewed.parquet --out packs/gtsrb-r1

    Example: guard retrain --pack models/gtsrb --at 127.0.0.1:8001 --out packs/gtsrb-r1
    --when 'reviewed>=200'
    """
    from guard.pack import Pack

    if bool(options["exports"]) == bool(options["target"]):
        raise click.UsageError("give --export or --at")
    if bool(options["fresh"]) != bool(options["victim"]):
        raise click.UsageError("--fresh and --victim go together")
    if out.exists():
        raise InputError(f"{out} is there already: a candidate gets a folder of its own")
    parent = Pack.load(pack)
    short = _short(parent, options)
    if short:
        click.echo(json.dumps({"waiting": short}) if as_json else f"nothing to do yet: {short}")
        return
    told = _round(parent, out, options)
    if as_json:
        click.echo(json.dumps(told))
    else:
        for reason in told["reasons"]:
            note(f"refused: {reason}")
        word = "passed the gate" if told["passed"] else "refused by the gate"
        click.echo(f"{told['candidate']}: {word}")
    if not told["passed"]:
        raise SystemExit(1)


def _round(parent: Any, out: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Make the candidate; what to say of it."""
    from guard.cli.textfile import write_metrics
    from guard.training.retrain import retrain as run

    made = run(_cases(options), _order(parent, out, options), log=note)
    told = {
        "candidate": str(made.folder),
        "digest": made.digest,
        "passed": made.gate.passed,
        "reasons": list(made.gate.reasons),
        **{name: made.retrained[name] for name in ("counts", "left_out", "selection", "finetune")},
        "seconds": dict(made.seconds),
    }
    if options["metrics_file"]:
        write_metrics(options["metrics_file"], told, parent.name)
    return told


def _order(parent: Any, out: Path, options: Mapping[str, Any]) -> Any:
    from guard.training.retrain import Order, own
    from guard.training.selection import Limits

    given = {name.replace("-", "_") for name in LIMITS}
    chosen = {name: options[name] for name in given if options[name] is not None}
    work = options["work"] or Path("work") / "retrain"
    strength = {name: options[name] for name in ("share", "drift", "steps")}
    return Order(
        parent,
        out,
        model=options["model"],
        own=own(options["calibration"], parent),
        fresh=_fresh(parent, work, options) if options["fresh"] else None,
        limits=Limits(**chosen),
        heads=("upstream", "alone") if options["head"] == "both" else (options["head"],),
        seed=options["seed"],
        private=_private(options),
        work=work,
        trained_by=getpass.getuser(),
        command=shlex.join(["guard", *sys.argv[1:]]),
        **{name: value for name, value in strength.items() if value is not None},
    )


def _private(options: Mapping[str, Any]) -> Any:
    noise, clip, delta = (options[f"private_{name}"] for name in ("noise", "clip", "delta"))
    if noise is None:
        return None
    try:
        from guard.training.private import Private
    except ModuleNotFoundError as error:
        raise ConfigError(
            "DP-SGD needs Opacus: pip install 'guard[private]'", key="private-noise"
        ) from error
    return Private(noise, clip, delta)


def _fresh(parent: Any, work: Path, options: Mapping[str, Any]) -> Any:
    from guard.defenses.load import load_evidence
    from guard.networks import fuse
    from guard.training.classifier import load_classifier
    from guard.training.fresh import fresh_rows
    from guard.training.parts import pictures

    images = read_images(options["fresh"], options["split"] or None, limit=options["fresh_count"])
    if images.classes != parent.classes:
        raise InputError(f"{options['fresh']} has other classes than {parent.name}")
    return fresh_rows(
        parent,
        load_evidence(parent),
        fuse(load_classifier(options["victim"])),
        pictures(images),
        work=work,
        victim=str(options["victim"].resolve()),
        seed=options["seed"],
        log=note,
    )


def _short(parent: Any, options: Mapping[str, Any]) -> str:
    """What --when still misses; "" where there is enough, or nothing was asked."""
    from guard.training.waiting import Condition, waiting

    if options["condition"] is None:
        return ""
    wanted = Condition.parse(options["condition"])
    return wanted.missing(waiting(_labels(options), parent))


def _labels(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Id and label of what was agreed on; a gateway is not asked for pictures."""
    from guard.suspects.record import Filter

    if not options["target"]:
        for case in _cases(options):
            if case.agreed and options["model"] in (None, case.model):
                yield case.id, case.label
        return
    with closing(connect(options["target"], options)) as client:
        after = None
        while True:
            wanted = Filter(model=options["model"], state="agreed")
            page = client.suspects.rows(wanted, after=after, limit=500)
            for row in page.rows:
                yield row.id, row.label or ""
            after = page.after
            if after is None:
                return


def _cases(options: Mapping[str, Any]) -> Iterator[Any]:
    from guard.suspects.record import Filter
    from guard.training.cases import from_export, from_gateway

    for path in options["exports"]:
        yield from from_export(path)
    if options["target"]:
        with closing(connect(options["target"], options)) as client:
            wanted = Filter(model=options["model"], state="agreed")
            yield from from_gateway(client.suspects.export(wanted))
