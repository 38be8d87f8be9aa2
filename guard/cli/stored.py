"""`guard suspects verify` and `backup`: on the store itself, with its gateway running or not."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from guard.cli.plain import FILE

if TYPE_CHECKING:
    from guard.suspects.suspect_store import SuspectStore


@click.command()
@click.argument("config", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def verify(config: Path, as_json: bool) -> None:
    """Open every suspect that the gateway of CONFIG keeps, and name those that do not open.

    Reads the store itself, as the user that the gateway runs as. Exit status: 0 all open, 1 not.

    Example: guard suspects verify guard.toml
    """
    with _store(config) as store:
        total = store.counts().total
        problems = list(store.verify())
    if as_json:
        click.echo(json.dumps({"suspects": total, "unreadable": len(problems), "why": problems}))
    else:
        for problem in problems:
            click.echo(problem)
        click.echo(f"{total} suspects, {len(problems)} unreadable")
    click.get_current_context().exit(int(bool(problems)))


@click.command()
@click.argument("config", type=FILE)
@click.argument("out", type=FILE)
def backup(config: Path, out: Path) -> None:
    """Copy the index of the suspects that the gateway of CONFIG keeps to the new file OUT.

    The gateway may run. Copy the sealed records after it; never put the keys beside them. The next
    rotation makes this copy worthless: make one after each.

    Example: guard suspects backup guard.toml /backup/index.sqlite3
    """
    with _store(config) as store:
        store.backup(out)
        total = store.counts().total
    click.echo(f"{out}: the index of {total} suspects")


@contextlib.contextmanager
def _store(path: Path) -> "Iterator[SuspectStore]":
    from guard.config import load_config
    from guard.errors import ConfigError
    from guard.gateway.keeping import opener
    from guard.suspects.suspect_store import SuspectStore

    config = load_config(path)
    if not config.suspects.enabled:
        raise ConfigError(f"{path} keeps no suspects", key="suspects.folder")
    store = cast(SuspectStore, opener(config)())
    with contextlib.closing(store):
        yield store
