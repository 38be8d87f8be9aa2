"""`guard pack`: build, rebuild and verify packs."""

from pathlib import Path

import click

from guard.cli.pictures import read_parts
from guard.cli.plain import FOLDER, note


@click.group()
def pack() -> None:
    """Build, rebuild and verify packs."""


@pack.command("build")
@click.argument("data")
@click.option("--out", type=FOLDER, required=True, help="The pack's folder; its name names it.")
@click.option("--recipe", default="default", show_default=True)
@click.option("--quick", is_flag=True, help="A minute or two instead of an hour; weak.")
@click.option("--work", type=FOLDER, help="Checkpoints; default: work/NAME. Builds resume here.")
@click.option("--limit", type=int, help="Pictures used at most, of each split.")
@click.option("--held", help="Judge by these pictures; their twins in DATA are left out.")
def pack_build(
    data: str,
    out: Path,
    recipe: str,
    quick: bool,
    work: Path | None,
    limit: int | None,
    held: str | None,
) -> None:
    """Train, calibrate, export and measure a pack for your own pictures.

    DATA is a folder of Hugging Face image Parquet or of pictures by class, with splits `train`
    and, if there is one, `test`; or `signs`, the procedural set; or torchvision:gtsrb, :cifar10 or
    :mnist, which are downloaded.

    With --held, detector, thresholds and figures come from those pictures alone: untouched ones,
    where DATA went through JPEG.

    Example: guard pack build my-pictures --out packs/mine
    """
    from guard.training.build import Origin, build_pack
    from guard.training.recipes import find

    parts = read_parts(data, limit, held=held)
    beside = f", judged by {Path(held).name}" if held else ""
    about = (
        f"from {Path(data).name}{beside} ({parts.fit.images.shape[1]}x{parts.fit.images.shape[2]})"
    )
    flags = f"{' --quick' if quick else ''}{f' --limit {limit}' if limit else ''}"
    flags += f" --held {Path(held).name}" if held else ""
    command = f"guard pack build {Path(data).name} --recipe {recipe} --out {out.name}{flags}"
    made = build_pack(
        parts,
        find(recipe, short=quick),
        Origin(out.resolve().name, about, command),
        out=out,
        work=work or Path("work") / out.resolve().name,
        log=note,
    )
    click.echo(f"{out}: {made.digest}")


@pack.command("rebuild")
@click.argument("folders", type=FOLDER, nargs=-1, required=True)
def pack_rebuild(folders: tuple[Path, ...]) -> None:
    """Export packs anew from their own weights, for what a newer guard adds to the graph.

    Nothing is trained or calibrated again: a graph that would answer differently is refused, and
    the old one stays. The digest changes, so `guard calibrate` has to be run again where it was.

    Example: guard pack rebuild packs/mine
    """
    from guard.training.rebuild import rebuild_pack

    for folder in folders:
        note(f"{folder}: exporting")
        click.echo(f"{folder}: {rebuild_pack(folder).digest}")


@pack.command("verify")
@click.argument("folders", type=FOLDER, nargs=-1, required=True)
def pack_verify(folders: tuple[Path, ...]) -> None:
    """Check hashes, pins and golden vectors of packs.

    Example: guard pack verify models/signs models/gtsrb
    """
    from guard.pipeline import Pipeline

    for folder in folders:
        found = Pipeline.load(folder, max_false_positive_rate=0.5)
        trust = "pinned" if found.pack.shipped else f"signed by {found.pack.signer}"
        click.echo(f"{folder}: {found.pack.digest} {trust}, golden vectors on {found.provider}")


@pack.command("pin", hidden=True)
@click.argument("folders", type=FOLDER, nargs=-1, required=True)
def pack_pin(folders: tuple[Path, ...]) -> None:
    """Pin packs as the ones that ship with this source tree (for guard's own maintainers).

    Example: guard pack pin models/signs models/gtsrb
    """
    from guard.pack import pin

    for folder in folders:
        click.echo(f"{folder}: {pin(folder)}")


@pack.command("card")
@click.argument("folders", type=FOLDER, nargs=-1, required=True)
def pack_card(folders: tuple[Path, ...]) -> None:
    """One Markdown table over several packs, from the numbers in their manifests.

    Example: guard pack card models/signs models/gtsrb
    """
    from guard.evaluation.card import overview
    from guard.pack import Pack

    click.echo(overview([Pack.load(folder).manifest for folder in folders]))
