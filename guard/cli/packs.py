"""`guard pack`: build, rebuild, sign and verify packs."""

from pathlib import Path

import click

from guard.cli.pictures import read_parts
from guard.cli.plain import FILE, FOLDER, note


@click.group()
def pack() -> None:
    """Build, rebuild, sign and verify packs."""


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
@click.option("--trust", type=FILE, multiple=True, help="PEM of keys or authorities to trust.")
@click.option("--seconds", default=60.0, show_default=True, help="For the probe run.")
def pack_verify(folders: tuple[Path, ...], trust: tuple[Path, ...], seconds: float) -> None:
    """Check who vouches for packs, what is in them, and that they run within bounds.

    Signature or pin, every file's hash, the graphs and arrays themselves, the statement of origin;
    then the golden vectors in a process of its own, with limits of time and memory. Without
    --trust the keys in $GUARD_HOME/trust count (default ~/.config/guard).

    Example: guard pack verify models/signs packs/mine
    """
    from guard.pack import Pack
    from guard.proberun import probe
    from guard.provenance import check_provenance
    from guard.signing.trust import Trust

    trusted = Trust.read(trust) if trust else None
    for folder in folders:
        found = Pack.load(folder, trust=trusted)
        command = check_provenance(found.files, found.manifest)
        ran = probe(found, seconds=seconds)
        vouched = found.signer if found.shipped else f"signed by {found.signer}"
        story = f", made by `{command}`" if command else ""
        click.echo(
            f"{folder}: {found.digest} {vouched}{story}; golden vectors in {ran.seconds:.1f} s, "
            f"{ran.memory >> 20} MiB, {'with' if ran.network else 'without'} a network"
        )


@pack.command("sign")
@click.argument("folders", type=FOLDER, nargs=-1, required=True)
@click.option("--key", type=FILE, help="A private key, PEM; default: this operator's own.")
@click.option("--certificates", type=FILE, help="The key's certificate and those between, PEM.")
def pack_sign(folders: tuple[Path, ...], key: Path | None, certificates: Path | None) -> None:
    """Vouch for packs: sign the files as they are (OpenSSF model-signing, `model.sig`).

    The first signature makes this operator's key, keys/operator.pem in $GUARD_HOME (default
    ~/.config/guard), and puts its public half into trust/ beside it. Keep the first one secret;
    give the second to the machines that serve (`gateway.trust`). Packs that ship with guard are
    pinned and need no signature.

    Example: guard pack sign packs/mine
    """
    from guard.pack import sign_pack
    from guard.signing.keys import operator_key, read_key

    if certificates and not key:
        raise click.UsageError("--certificates needs the --key that they belong to")
    chosen = read_key(key, certificates) if key else operator_key()
    for folder in folders:
        signed = sign_pack(folder, chosen)
        click.echo(f"{folder}: {signed.digest} signed by key {chosen.id[:16]}")


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
