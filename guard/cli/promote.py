"""`guard promote`, `guard rollback`: which pack guards a model of a running gateway."""

import json
from contextlib import closing
from typing import Any

import click

from guard.cli.connection import connect
from guard.cli.suspects import at

SECONDS = 120.0  # a pack is read, verified and tried out


@click.command()
@click.argument("pack", metavar="NAME")
@at
@click.option("--model", default="", help="Of this model; may be left out where there is one.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def promote(pack: str, model: str, as_json: bool, **options: Any) -> None:
    """Let the pack NAME of the gateway's folder serve, without a restart.

    It must have passed the gate against the pack that serves now. Where callers are known it must
    have been submitted by somebody else.

    Example: guard promote signs-r1 --at 127.0.0.1:8001
    """
    from guard.gateway import protocol

    request = protocol.PromotePackRequest(model_name=model, pack=pack)
    with closing(connect(options["target"], options)) as client:
        standing = client.call("PromotePack", request, timeout=SECONDS)
    _tell(standing, as_json=as_json)


@click.command()
@at
@click.option("--model", default="", help="Of this model; may be left out where there is one.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def rollback(model: str, as_json: bool, **options: Any) -> None:
    """Let the pack serve again that did before the last promotion.

    Example: guard rollback --at 127.0.0.1:8001
    """
    from guard.gateway import protocol

    request = protocol.RollbackPackRequest(model_name=model)
    with closing(connect(options["target"], options)) as client:
        standing = client.call("RollbackPack", request, timeout=SECONDS)
    _tell(standing, as_json=as_json)


def _tell(standing: Any, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(record(standing)))
        return
    entry = standing.current
    name = entry.pack or "the pack that the settings name"
    click.echo(f"{standing.model_name}: {name} serves ({entry.digest[:19]}, serial {entry.serial})")


def record(standing: Any) -> dict[str, Any]:
    """A PackStanding as plain values."""
    return {
        "model": standing.model_name,
        "current": _entry(standing.current),
        "before": [_entry(entry) for entry in standing.before],
        "shadow": _entry(standing.shadow) if standing.HasField("shadow") else None,
    }


def _entry(entry: Any) -> dict[str, Any]:
    names = ("pack", "digest", "serial", "submitted_by", "approved_by", "at")
    return {name: getattr(entry, name) for name in names}
