"""`guard audit`: verify the audit log, read it, look after its keys."""

import json
from pathlib import Path

import click

from guard.cli.plain import FILE, FOLDER


@click.group()
def audit() -> None:
    """Verify the audit log, read it, look after its keys."""


@audit.command()
@click.argument("folder", type=FOLDER)
@click.option("--key", type=FILE, required=True, help="The log's key file, or a reader's copy.")
@click.option(
    "--checkpoints",
    type=click.Path(path_type=Path),
    help="Checkpoints as they were kept elsewhere: a folder or a file.",
)
@click.option("--since", type=int, help="Begin at this record: earlier files were archived.")
@click.option("--json", "as_json", is_flag=True, help="The whole report as JSON.")
def verify(
    folder: Path, key: Path, checkpoints: Path | None, since: int | None, as_json: bool
) -> None:
    """Say whether the log in FOLDER is as it was written, and if not, what was done to it.

    Exit status: 0 intact, 1 it was changed or cut, 2 it cannot be verified.

    Example: guard audit verify audit --key audit.key --checkpoints vault/checkpoints
    """
    from guard.gateway.audit.keys import load_keys
    from guard.gateway.audit.verify import verify as check

    report = check(folder, load_keys(key), exported=checkpoints, since=since)
    if as_json:
        click.echo(json.dumps(report.record(), indent=1))
    else:
        for line in report.lines():
            click.echo(line)
    click.get_current_context().exit(int(not report.ok))


@audit.command()
@click.argument("folder", type=FOLDER)
@click.option("--event", "events", multiple=True, help="This event, or kind: refused, admin, ...")
@click.option("--since", default="", help="UTC, as in the log or shorter: 2026-11-20T13.")
@click.option("--until", default="", help="The same; the whole hour or day is included.")
@click.option("--actor", help="A subject's name; needs --key.")
@click.option("--key", type=FILE, help="The log's key file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per record.")
def show(
    folder: Path,
    events: tuple[str, ...],
    since: str,
    until: str,
    actor: str | None,
    key: Path | None,
    as_json: bool,
) -> None:
    """Print records of the log in FOLDER, unverified.

    Example: guard audit show audit --event refused --since 2026-11-20
    """
    from guard.gateway.audit.keys import load_keys
    from guard.gateway.audit.show import plain, records

    if (actor is None) != (key is None):
        raise click.UsageError("--actor and --key go together: the log knows subjects by hash")
    actors = load_keys(key).actors(actor) if key is not None and actor is not None else []
    for one in records(folder, events=events, actors=actors, since=since, until=until):
        click.echo(json.dumps(one) if as_json else plain(one))


@audit.command()
@click.argument("key", type=FILE)
def rotate(key: Path) -> None:
    """Add a new key to the file KEY; the gateway uses it from its next start on.

    Example: guard audit rotate audit.key
    """
    from guard.gateway.audit.keys import rotate_keys

    click.echo(f"{key}: key {rotate_keys(key).current.id}; restart the gateway to use it")


@audit.command()
@click.argument("key", type=FILE)
@click.argument("copy", type=FILE)
def reader(key: Path, copy: Path) -> None:
    """Write a COPY of the keys that verifies the log, and neither signs nor names subjects.

    Example: guard audit reader audit.key auditor.key
    """
    from guard.gateway.audit.keys import load_keys, write_reader

    write_reader(load_keys(key), copy)
    click.echo(f"{copy}: for `guard audit verify --key {copy}`")
