"""The command line. Every command is a few lines: the work is done elsewhere.

Exit status: 0 done, 1 it failed (one plain line says why), 2 misuse.
"""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np

from guard import __version__
from guard.config import Config, Gateway, load_config, single_pack_config
from guard.errors import ConfigError, GuardError

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
ANY = click.Path(path_type=Path)


class Plain(click.Group):
    """A group whose errors are one line, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; expected failures become an exit status."""
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            click.echo(f"guard: {error}", err=True)
            ctx.exit(2)
        except GuardError as error:
            click.echo(f"guard: {error}", err=True)
            ctx.exit(1)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in ("torch", "onnx", "pyarrow"):
                raise
            text = f"guard: this needs {error.name}: pip install 'guard[train]'"
            click.echo(text, err=True)
            ctx.exit(1)


def note(line: str) -> None:
    """Progress, on the error stream."""
    click.echo(line, err=True)


@click.group(cls=Plain, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """The gateway in front of a production image classifier.

    Example: guard demo
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")


@main.command()
@click.argument("config", type=FILE, required=False)
@click.option("--pack", type=FOLDER, help="Serve this pack alone, its ensemble answering.")
@click.option("--listen", help="HOST:PORT of the gRPC service (with --pack).")
@click.option("--metrics", help="HOST:PORT of /metrics (with --pack).")
def serve(config: Path | None, pack: Path | None, listen: str | None, metrics: str | None) -> None:
    """Run the gateway until SIGINT or SIGTERM.

    Example: guard serve guard.toml

    Example: guard serve --pack models/signs --listen 127.0.0.1:8001
    """
    from guard.gateway import server

    settings = _config(config, pack, listen=listen, metrics=metrics)
    server.serve(settings, announce=click.echo)


@main.command()
@click.argument("config", type=FILE)
@click.option("--offline", is_flag=True, help="Do not ask the upstreams.")
def check(config: Path, offline: bool) -> None:
    """Validate a config, verify its packs, explain the chain and price it.

    An upstream that answers is asked about one grey picture; one whose classes are not the pack's
    is refused.

    Example: guard check guard.toml
    """
    from guard.explain import explain
    from guard.gateway.probe import probe

    settings = load_config(config)
    for model in settings.models:
        pipeline = _pipeline(settings, model)
        for line in explain(settings, model, pipeline):
            click.echo(line)
        if model.upstream and not offline:
            click.echo(f"  upstream: {probe(settings.gateway, model, pipeline).text}")
    click.echo("ok")


@main.command()
@click.argument("images", type=FILE, nargs=-1, required=True)
@click.option("--pack", type=FOLDER, required=True, help="The pack that judges.")
@click.option("--budget", default=0.01, show_default=True, help="False-alarm budget.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per image.")
def inspect(images: tuple[Path, ...], pack: Path, budget: float, as_json: bool) -> None:
    """Verdicts on picture files, offline; pictures are resized to the pack's size.

    Example: guard inspect sign.png --pack models/signs
    """
    from guard.images import decode_image
    from guard.pipeline import Pipeline

    pipeline = Pipeline.load(pack, max_false_positive_rate=budget)
    channels, height, width = pipeline.input_shape
    for path in images:
        data = _read(path)
        picture = decode_image(data, size=(height, width), channels=channels, name=str(path))
        verdict = pipeline.inspect(picture[None])[0]
        name = pipeline.classes[verdict.label]
        if as_json:
            record = {"image": str(path), "class": name, **verdict.record()}
            click.echo(json.dumps(record))
        else:
            scores = " ".join(f"{key} {value:.3g}" for key, value in verdict.scores.items())
            click.echo(f"{path}: {verdict.decision.name} {name} p={verdict.p_value:.4f} {scores}")


@main.command()
@click.option("--json", "report", type=FILE, help="Write the numbers here.")
@click.option("--picture", type=FILE, default="guard-demo.png", show_default=True)
@click.option("--pack", type=FOLDER, help="Another pack of procedural signs.")
@click.option("--seed", default=0, show_default=True)
@click.option("--quick", is_flag=True, hidden=True)
def demo(report: Path | None, picture: Path, pack: Path | None, seed: int, quick: bool) -> None:
    """Attack a live classifier, unguarded and behind the gateway. Two minutes, offline.

    Example: guard demo --json demo.json
    """
    from guard.demo.run import Options
    from guard.demo.run import demo as run

    options = Options(json=report, picture=picture, pack=pack, seed=seed, quick=quick)
    run(options, say=click.echo)


@main.command()
@click.argument("config", type=FILE)
@click.option("--data", required=True, help="Clean pictures: Parquet, folders, or 'signs'.")
@click.option("--split", help="Split of the data, for example test.")
@click.option("--model", "only", help="Name of one model; default: all of them.")
@click.option("--upstream", help="Ask this upstream instead of the configured one.")
@click.option("--limit", default=5000, show_default=True, help="Pictures used at most.")
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=FOLDER, help="Folder for MODEL.npz; default: beside the config.")
def calibrate(
    config: Path,
    data: str,
    split: str | None,
    only: str | None,
    upstream: str | None,
    limit: int,
    seed: int,
    out: Path | None,
) -> None:
    """Calibrate thresholds for an upstream, from clean pictures of its own kind.

    The false-alarm budget then holds for pictures like these, answered by that upstream. Use
    pictures that no classifier was trained on.

    Example: guard calibrate guard.toml --data pictures --split test
    """
    from guard.gateway.ask import asking
    from guard.training.calibrate import calibrate as fit
    from guard.training.calibrate import write

    settings = load_config(config)
    images = _images(data, split, limit=limit, seed=seed)
    chosen = [model for model in settings.models if only in (None, model.name)]
    if not chosen:
        raise ConfigError(f"{config} has no model {only!r}", key="models.name")
    for model in chosen:
        model = model.asking(upstream) if upstream else model
        pipeline = _pipeline(settings, model, calibrated=False)
        about = {"data": f"{data} {split or ''}".strip(), "upstream": model.upstream or "none"}
        with _asker(asking, settings, model, pipeline) as ask:
            entries = fit(pipeline, images, ask=ask, about=about, log=note)
        path = (out or config.parent) / f"{model.name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, entries)
        click.echo(f"{path}: {len(images)} pictures; set `calibration = {str(path)!r}`")


@main.group()
def train() -> None:
    """Train classifiers (needs the extra `train`)."""


@train.command()
@click.argument("data")
@click.option("--recipe", default="default", show_default=True, help="A pack's recipe.")
@click.option("--member", default="wide", show_default=True, help="Which of its classifiers.")
@click.option("--quick", is_flag=True, help="Few epochs and a small net, for trying things out.")
@click.option("--out", type=FOLDER, required=True, help="Checkpoints and MEMBER.onnx go here.")
@click.option("--limit", type=int, help="Pictures used at most.")
def classifier(
    data: str, recipe: str, member: str, quick: bool, out: Path, limit: int | None
) -> None:
    """Train one classifier; resumes where it was stopped, ends with an ONNX file.

    Example: guard train classifier signs --member sentinel --out work/production
    """
    from guard.training.single import train_one

    path = train_one(_parts(data, limit), recipe, member, quick=quick, out=out, log=note)
    click.echo(str(path))


@main.group()
def pack() -> None:
    """Build and verify packs."""


@pack.command("build")
@click.argument("data")
@click.option("--out", type=FOLDER, required=True, help="The pack's folder; its name names it.")
@click.option("--recipe", default="default", show_default=True)
@click.option("--quick", is_flag=True, help="A minute or two instead of an hour; weak.")
@click.option("--work", type=FOLDER, help="Checkpoints; default: work/NAME. Builds resume here.")
@click.option("--limit", type=int, help="Pictures used at most, of each split.")
def pack_build(
    data: str, out: Path, recipe: str, quick: bool, work: Path | None, limit: int | None
) -> None:
    """Train, calibrate, export and measure a pack for your own pictures.

    DATA is a folder of Hugging Face image Parquet or of pictures by class, with splits `train`
    and, if there is one, `test`; or `signs`, the procedural set; or torchvision:gtsrb, :cifar10 or
    :mnist, which are downloaded.

    Example: guard pack build my-pictures --out packs/mine
    """
    from guard.training.build import Origin, build_pack
    from guard.training.recipes import find

    parts = _parts(data, limit)
    about = f"from {Path(data).name} ({parts.fit.images.shape[1]}x{parts.fit.images.shape[2]})"
    flags = f"{' --quick' if quick else ''}{f' --limit {limit}' if limit else ''}"
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


@pack.command("verify")
@click.argument("folders", type=FOLDER, nargs=-1, required=True)
def pack_verify(folders: tuple[Path, ...]) -> None:
    """Check hashes, pins and golden vectors of packs.

    Example: guard pack verify models/signs models/gtsrb
    """
    from guard.pipeline import Pipeline

    for folder in folders:
        found = Pipeline.load(folder, max_false_positive_rate=0.5)
        trust = "pinned" if found.pack.shipped else "hashes match, not signed"
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


def _config(
    config: Path | None, folder: Path | None, *, listen: str | None, metrics: str | None
) -> Config:
    if (config is None) == (folder is None):
        raise click.UsageError("give either a config file or --pack")
    if folder is not None:
        return single_pack_config(
            folder, listen=listen or Gateway().listen, metrics=metrics or Gateway().metrics
        )
    if config is None or listen is not None or metrics is not None:
        raise click.UsageError("--listen and --metrics go with --pack; the config has its own")
    return load_config(config)


def _pipeline(config: Config, model: Any, *, calibrated: bool = True) -> Any:
    from guard.gateway.server import read_secret
    from guard.pipeline import Pipeline

    path = Path(model.calibration) if calibrated and model.calibration else None
    return Pipeline.load(
        model.pack,
        policy=config.policy(model),
        calibration_file=path,
        secret=read_secret(config.gateway),
    )


@contextmanager
def _asker(asking: Any, config: Config, model: Any, pipeline: Any) -> Iterator[Any]:
    if not model.upstream:
        yield None
        return
    with asking(config.gateway, model, pipeline) as ask:
        yield ask


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise GuardError(f"{path}: {error.strerror}") from error


def _images(data: str, split: str | None, *, limit: int | None, seed: int = 0) -> Any:
    """An image set by path and split; `signs` draws the procedural one."""
    from guard.data import read, signs

    if data == "signs" and not Path(data).exists():
        seeds = {"train": 1, "test": 2}
        return signs.make(limit or 20000, seed=seeds.get(split or "", 1000 + seed))
    if data.startswith("torchvision:"):
        from guard.training.downloads import download

        images = download(data.partition(":")[2], split or "train")
    else:
        images = read(data, split)
    if limit is not None and limit < len(images):
        images = images.subset(np.random.default_rng(seed).permutation(len(images))[:limit])
    return images


def _parts(data: str, limit: int | None) -> Any:
    from guard.training.parts import divide

    if data == "signs" and not Path(data).exists():
        count = limit or 20000
        return divide(_images(data, "train", limit=count), _images(data, "test", limit=count // 2))
    train_set = _images(data, "train", limit=limit)
    try:
        test_set = _images(data, "test", limit=limit)
    except GuardError:
        note("no test split: a fifth of the training pictures is set aside")
        test_set = None
    return divide(train_set, test_set)


if __name__ == "__main__":
    sys.exit(main())
