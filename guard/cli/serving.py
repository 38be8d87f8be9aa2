"""Commands around serving: serve, check, inspect, calibrate, demo."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from guard.cli.console import beside
from guard.cli.pictures import read_images
from guard.cli.plain import FILE, FOLDER, note
from guard.config import Config, Gateway, load_config, single_pack_config
from guard.errors import ConfigError, GuardError


@click.command()
@click.argument("config", type=FILE, required=False)
@click.option("--pack", type=FOLDER, help="Serve this pack alone, its ensemble answering.")
@click.option("--listen", help="HOST:PORT of the gRPC service (with --pack).")
@click.option("--metrics", help="HOST:PORT of /metrics (with --pack).")
@click.option("--insecure", is_flag=True, help="Let everybody call, from anywhere (with --pack).")
def serve(
    config: Path | None, pack: Path | None, listen: str | None, metrics: str | None, insecure: bool
) -> None:
    """Run the gateway until SIGINT or SIGTERM.

    Example: guard serve guard.toml

    Example: guard serve --pack models/signs --listen 127.0.0.1:8001
    """
    from guard.gateway import server

    settings = _config(config, pack, listen=listen, metrics=metrics, insecure=insecure)
    server.serve(settings, announce=click.echo, beside=beside(settings))


@click.command()
@click.argument("config", type=FILE)
@click.option("--offline", is_flag=True, help="Do not ask the upstreams.")
def check(config: Path, offline: bool) -> None:
    """Validate a config, verify its packs and keys, explain who may do what, the chain, its price.

    An upstream that answers is asked about one grey picture; one whose classes are not the pack's
    is refused.

    Example: guard check guard.toml
    """
    from guard.explain import (
        explain,
        explain_access,
        explain_audit,
        explain_console,
        explain_limits,
        explain_packs,
        explain_release,
        explain_suspects,
    )
    from guard.gateway.probe import probe

    settings = load_config(config)
    gateway = settings.gateway
    for line in (
        *explain_access(gateway),
        *explain_limits(gateway),
        *explain_release(gateway.key_release),
        *explain_audit(gateway.audit),
        *explain_suspects(settings),
        *explain_console(settings),
        *explain_packs(settings),
    ):
        click.echo(line)
    for model in settings.models:
        pipeline = _pipeline(settings, model)
        for line in explain(settings, model, pipeline):
            click.echo(line)
        if model.upstream and not offline:
            click.echo(f"  upstream: {probe(settings.gateway, model, pipeline).text}")
    click.echo("ok")


@click.command()
@click.argument("images", type=FILE, nargs=-1)
@click.option("--pack", type=FOLDER, help="The pack that judges pictures.")
@click.option("--budget", default=0.01, show_default=True, help="False-alarm budget.")
@click.option("--suspect", metavar="ID", help="Judge this suspect again instead.")
@click.option("--config", type=FILE, help="The settings of the gateway that kept it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per image.")
def inspect(
    images: tuple[Path, ...],
    pack: Path | None,
    budget: float,
    suspect: str | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Verdicts on picture files, offline; pictures are resized to the pack's size.

    With --suspect: the verdict on a suspect once more, from its store, pack and secret; bit for
    bit the same on the same provider and version, or exit status 1 and what differs.

    Example: guard inspect sign.png --pack models/signs

    Example: guard inspect --suspect ID --config guard.toml
    """
    if suspect is not None:
        if config is None or images or pack is not None:
            raise click.UsageError("--suspect goes with --config, and with no pictures or --pack")
        return _replay(config, suspect, as_json=as_json)
    if not images or pack is None or config is not None:
        raise click.UsageError("give pictures and --pack, or --suspect and --config")
    return _inspect(images, pack, budget, as_json=as_json)


def _inspect(images: tuple[Path, ...], pack: Path, budget: float, *, as_json: bool) -> None:
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
            click.echo(f"{path}: {_line(verdict, name)}")


def _replay(config: Path, suspect_id: str, *, as_json: bool) -> None:
    from guard.gateway.keeping import opener
    from guard.replay import replay

    settings = load_config(config)
    if not settings.suspects.enabled:
        raise ConfigError(f"{config}: suspects.folder: no suspects are kept", key="suspects.folder")
    store = opener(settings)()
    try:
        suspect = store.get(suspect_id)
    finally:
        store.close()
    chosen = [model for model in settings.models if model.name == suspect.model]
    if not chosen:
        raise ConfigError(f"{config} has no model {suspect.model!r}", key="models.name")
    pipeline = _pipeline(settings, chosen[0], digest=suspect.pack)
    again = replay(suspect, pipeline)
    name = pipeline.classes[again.verdict.label]
    if as_json:
        found = {"identical": again.identical, "differences": again.differences}
        record = {"suspect": suspect.id, "class": name, **again.verdict.record(), **found}
        click.echo(json.dumps(record))
    else:
        click.echo(f"{suspect.id}: {_line(again.verdict, name)}")
        for line in again.differences or ("bit for bit the verdict it got",):
            click.echo(f"  {line}")
    if not again.identical:
        raise SystemExit(1)


def _line(verdict: Any, name: str) -> str:
    scores = " ".join(f"{key} {value:.3g}" for key, value in verdict.scores.items())
    return f"{verdict.decision.name} {name} p={verdict.p_value:.4f} {scores}"


@click.command()
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


@click.command()
@click.argument("config", type=FILE)
@click.option("--data", default="", help="Clean pictures: Parquet, folders, or 'signs'.")
@click.option(
    "--from-suspects",
    "export",
    type=FILE,
    help="Instead of --data: an export of suspects, of which the reviewed random sample counts.",
)
@click.option("--split", help="Split of the data, for example test.")
@click.option("--model", "only", help="Name of one model; default: all of them.")
@click.option("--upstream", help="Ask this upstream instead of the configured one.")
@click.option("--limit", default=5000, show_default=True, help="Pictures used at most.")
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=FOLDER, help="Folder for MODEL.npz; default: beside the config.")
def calibrate(
    config: Path,
    data: str,
    export: Path | None,
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
    from guard.cli.sampled import calibrate_on_sample
    from guard.gateway.ask import asking
    from guard.training.calibrate import calibrate as fit
    from guard.training.calibrate import write

    if bool(data) == (export is not None):
        raise click.UsageError("give either --data or --from-suspects")
    settings = load_config(config)
    chosen = [model for model in settings.models if only in (None, model.name)]
    if not chosen:
        raise ConfigError(f"{config} has no model {only!r}", key="models.name")
    if export is not None:
        pipelines = [(model, _pipeline(settings, model, calibrated=False)) for model in chosen]
        calibrate_on_sample(pipelines, export, out or config.parent)
        return
    images = read_images(data, split, limit=limit, seed=seed)
    for model in chosen:
        model = model.asking(upstream) if upstream else model
        pipeline = _pipeline(settings, model, calibrated=False)
        about = {"data": f"{data} {split or ''}".strip(), "upstream": model.upstream or "none"}
        with _asker(asking, settings, model, pipeline) as ask:
            kept: list[Any] = []
            entries = fit(pipeline, images, ask=ask, about=about, log=note, keep=kept.append)
        path = (out or config.parent) / f"{model.name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, entries, kept[0])
        click.echo(f"{path}: {len(images)} pictures; set `calibration = {str(path)!r}`")


def _config(
    config: Path | None,
    folder: Path | None,
    *,
    listen: str | None,
    metrics: str | None,
    insecure: bool,
) -> Config:
    if (config is None) == (folder is None):
        raise click.UsageError("give either a config file or --pack")
    if folder is not None:
        return single_pack_config(
            folder,
            listen=listen or Gateway().listen,
            metrics=metrics or Gateway().metrics,
            insecure=insecure,
        )
    if config is None or listen is not None or metrics is not None or insecure:
        text = "--listen, --metrics and --insecure go with --pack; the config has its own"
        raise click.UsageError(text)
    return load_config(config)


def _pipeline(config: Config, model: Any, *, calibrated: bool = True, digest: str = "") -> Any:
    """The pack that serves, or served when it had this digest, made ready."""
    from guard.gateway.loading import Packs
    from guard.gateway.server import read_secret

    packs, secret = Packs(config), read_secret(config.gateway)
    pack = packs.of(model, digest) if digest else packs.serving(model)
    return packs.pipeline(model, pack, secret, calibrated=calibrated)


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
