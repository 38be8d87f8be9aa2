"""`guard promote`, `guard rollback`: which pack guards a model of a running gateway."""

import json
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import click

from guard.cli.connection import connect
from guard.cli.suspects import at

ENTRY = ("pack", "digest", "serial", "submitted_by", "approved_by", "at")
OFFER = ("pack", "digest", "serial", "problem")
COUNT = ("current", "candidate", "images")
SECONDS = 120.0  # a pack is read, verified and tried out


@click.command()
@click.argument("pack", metavar="NAME", required=False)
@at
@click.option("--model", default="", help="Of this model; may be left out where there is one.")
@click.option("--shadow", is_flag=True, help="Let it watch live traffic and decide nothing yet.")
@click.option("--no-shadow", is_flag=True, help="Let none watch any more.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def promote(
    pack: str | None, model: str, shadow: bool, no_shadow: bool, as_json: bool, **options: Any
) -> None:
    """Let the pack NAME of the gateway's folder serve, without a restart; without NAME: list them.

    It must have passed the gate against the pack that serves now. Where callers are known somebody
    else must have submitted it, with --shadow.

    Example: guard promote signs-r1 --shadow

    Example: guard promote signs-r1 --at 127.0.0.1:8001
    """
    from guard.gateway import protocol

    if (shadow and (pack is None or no_shadow)) or (no_shadow and pack is not None):
        raise click.UsageError("--shadow goes with NAME, --no-shadow goes alone")
    with closing(connect(options["target"], options)) as client:
        if pack is None and not no_shadow:
            request = protocol.ListPacksRequest(model_name=model)
            found = client.call("ListPacks", request, timeout=SECONDS)
            for standing in found.models:
                _tell(standing, as_json=as_json)
        elif shadow or no_shadow:
            request = protocol.ShadowPackRequest(model_name=model, pack=pack or "")
            _tell(client.call("ShadowPack", request, timeout=SECONDS), as_json=as_json)
        else:
            request = protocol.PromotePackRequest(model_name=model, pack=pack)
            _tell(client.call("PromotePack", request, timeout=SECONDS), as_json=as_json)


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
    click.echo(f"{standing.model_name}: {_named(standing.current)} serves")
    for entry in reversed(standing.before):
        click.echo(f"  before: {_named(entry)}")
    if standing.HasField("shadow"):
        click.echo(f"  in shadow: {_named(standing.shadow)}")
    for count in standing.shadow_counts:
        click.echo(f"    {count.images} images: {count.current}, would be {count.candidate}")
    for each in standing.candidates:
        click.echo(f"  {each.pack}: {each.problem or 'may be promoted'}")


def _named(entry: Any) -> str:
    name = entry.pack or "the pack that the settings name"
    by = f", approved by {entry.approved_by}" if entry.approved_by else ""
    return f"{name} ({entry.digest[:19]}, serial {entry.serial}{by})"


def record(standing: Any) -> dict[str, Any]:
    """A PackStanding as plain values."""
    return {
        "model": standing.model_name,
        "current": _values(standing.current, ENTRY),
        "before": [_values(entry, ENTRY) for entry in standing.before],
        "shadow": _values(standing.shadow, ENTRY) if standing.HasField("shadow") else None,
        "shadow_counts": [_values(each, COUNT) for each in standing.shadow_counts],
        "candidates": [_values(each, OFFER) for each in standing.candidates],
    }


def _values(message: Any, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(message, name) for name in names}
