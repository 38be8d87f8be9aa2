"""`guard data`: look at an image set before anyone trains on it."""

import json
import time
from pathlib import Path
from typing import Any

import click

from guard.cli.plain import FILE, FOLDER, note
from guard.errors import ConfigError, InputError


@click.group()
def data() -> None:
    """Look at an image set before anyone trains on it."""


@data.command("check")
@click.argument("source", metavar="DATA")
@click.option("--split", help="What is trained on; default: train, where there are splits.")
@click.option("--test-split", help="What is measured on; default: test, where there is one.")
@click.option("--quick", is_flag=True, help="A third of the training; finds less.")
@click.option("--no-training", is_flag=True, help="Leave out labels and triggers; needs no torch.")
@click.option("--checkpoint", type=FOLDER, help="Search this classifier's features for triggers.")
@click.option("--limit", type=int, help="Pictures drawn of `signs` or read by torchvision.")
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The whole report as JSON.")
@click.option("--out", type=FILE, help="Write the whole report here, as JSON.")
@click.option("--picture", type=FILE, help="Draw the worst pictures of each finding here (PNG).")
def check(
    source: str,
    split: str | None,
    test_split: str | None,
    quick: bool,
    no_training: bool,
    checkpoint: Path | None,
    limit: int | None,
    seed: int,
    as_json: bool,
    out: Path | None,
    picture: Path | None,
) -> None:
    """Report duplicates, leakage, wrong labels, imbalance and signs of planted triggers.

    DATA is as for `guard pack build`. Exit status: 0 nothing serious, 1 something serious was
    found, 2 the set cannot be read or the options do not fit.

    Example: guard data check pictures --picture findings.png
    """
    from guard.data.check import check as look
    from guard.data.findings import Report

    if no_training and checkpoint:
        raise click.UsageError("--checkpoint is for what --no-training leaves out")
    started = time.monotonic()
    try:
        scans = _scans(source, split, test_split, limit)
        findings = look(scans, log=note)
        if not no_training:
            findings += _inspected(scans, quick=quick, checkpoint=checkpoint, seed=seed)
    except InputError as error:
        raise ConfigError(str(error), key="data") from error
    counts = {scan.split: len(scan) for scan in scans}
    report = Report(source, counts, findings, time.monotonic() - started)
    _deliver(report, scans, as_json=as_json, out=out, picture=picture)
    click.get_current_context().exit(int(report.serious))


def _inspected(scans: list[Any], *, quick: bool, checkpoint: Path | None, seed: int) -> list[Any]:
    from guard.training.inspection import Inspection, inspect

    how = Inspection(quick=quick, checkpoint=checkpoint, seed=seed, log=note)
    return inspect(scans[0], scans[1] if len(scans) > 1 else None, how)


def _scans(source: str, split: str | None, test: str | None, limit: int | None) -> list[Any]:
    """The split that is trained on and, where there is one, the one that is measured on."""
    from guard.data.scan import scan, scan_images, splits

    path = Path(source)
    if not path.exists() and (source == "signs" or source.startswith("torchvision:")):
        from guard.cli.pictures import read_images

        names = (split or "train", test or "test")
        return [scan_images(read_images(source, name, limit=limit), name) for name in names]
    if limit is not None:
        raise InputError("--limit is for signs and torchvision; files are read whole")
    if not path.exists():
        raise InputError(f"{source}: no such file or folder")
    known = splits(path)
    for name in (split, test):
        if name is not None and name not in known:
            there = ", ".join(known) or "none"
            raise InputError(f"{source}: no split {name!r}; there are {there}")
    first = split or ("train" if "train" in known else None)
    second = test or ("test" if "test" in known and first != "test" else None)
    note(f"reading {source}")
    return [scan(path, first), *([scan(path, second)] if second else [])]


def _deliver(
    report: Any, scans: list[Any], *, as_json: bool, out: Path | None, picture: Path | None
) -> None:
    text = json.dumps(report.record(), indent=1)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n")
    if picture:
        from guard.data.sheet import draw

        picture.parent.mkdir(parents=True, exist_ok=True)
        draw(report, scans).save(picture, format="PNG")
    if as_json:
        click.echo(text)
        return
    for line in report.lines():
        click.echo(line)
    for path in (out, picture):
        if path:
            click.echo(str(path))
