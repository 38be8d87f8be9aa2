"""`guard suspects`: look at what a gateway kept, label it, export it, erase it.

It goes through a running gateway, which knows who asks, what they may, and records it; `stored.py`
has what is for who has the store and its keys anyway.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from guard.cli.connection import connect, connecting
from guard.cli.plain import FILE, note

Command = TypeVar("Command", bound=Callable[..., Any])
LABELS = click.Choice(["adversarial", "benign", "unsure"])
DECISIONS = click.Choice(["allow", "flag", "block", "abstain", "error"], case_sensitive=False)
ORDERS = click.Choice(["newest", "oldest", "most_suspicious"])
MOST = 500  # rows of a page


def _when(_context: Any, _option: Any, value: str | None) -> float | None:
    """Seconds since 1970 from a time in UTC such as 2026-11-20, or ...T13, or ...T13:30:05."""
    if value is None:
        return None
    try:
        when = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no time: 2026-11-20T13:30") from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def at(command: Command) -> Command:
    """Which gateway, and how to reach it."""
    option = click.option(
        "--at",
        "target",
        metavar="HOST:PORT",
        default="127.0.0.1:8001",
        show_default=True,
        help="The gateway.",
    )
    return option(connecting(command))


def chosen(command: Command) -> Command:
    """Options that say which suspects are meant."""
    for option in (
        click.option("--p-at-most", "p_value_at_most", type=float, help="Of this p-value or less."),
        click.option("--until", "taken_before", callback=_when, help="Taken before; as --since."),
        click.option(
            "--since", "taken_from", callback=_when, help="UTC: 2026-11-20T13:30 or less."
        ),
        click.option("--state", type=click.Choice(["open", "agreed", "disputed"])),
        click.option("--label", type=LABELS, help="What reviewers agreed on."),
        click.option("--sampled/--not-sampled", default=None, help="Drawn at random, or not."),
        click.option("--defense", help="A defence that alarmed; detector is one."),
        click.option("--decision", type=DECISIONS),
        click.option("--predicted", type=click.IntRange(0), help="The class that was answered."),
        click.option("--client-hash", "client", help="Who sent it, as rows name them."),
        click.option("--client", "client_name", help="Who sent it, by name: jwt:alice."),
        click.option("--tenant", help="Whose it is."),
        click.option("--pack", help="A pack's digest."),
        click.option("--model"),
        click.option("--id", "ids", multiple=True, help="This one; several times for several."),
    ):
        command = option(command)
    return command


@click.group()
def suspects() -> None:
    """Look at what a gateway kept, label it, export it, erase it."""


@suspects.command("list")
@at
@chosen
@click.option("--order", type=ORDERS, default="newest", show_default=True)
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per suspect.")
def list_(order: Any, limit: int, as_json: bool, **options: Any) -> None:
    """List suspects, without pictures.

    Example: guard suspects list --state open --order most_suspicious --limit 20
    """
    wanted, client_name = _wanted(options)
    with _client(options) as client:
        after = None
        while limit > 0:
            page = client.suspects.rows(
                wanted,
                client_name=client_name,
                order=order,
                after=after,
                limit=min(limit, MOST),
            )
            _tell(page.rows, as_json)
            limit, after = limit - len(page.rows), page.after
            if after is None:
                return
        note("there are more: --limit")


@suspects.command()
@click.argument("suspect_id", metavar="ID")
@at
@click.option("--picture", type=FILE, help="Write the picture here, PNG; this is audited.")
@click.option("--similar", type=click.IntRange(0, MOST), default=0, help="So many that look alike.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def show(
    suspect_id: str, picture: Path | None, similar: int, as_json: bool, **options: Any
) -> None:
    """Show all that is known of the suspect ID; its picture only where --picture asks for it.

    Example: guard suspects show 7gqe2kq5v3xk4mza5tq4b2nrwy --picture suspect.png
    """
    from guard.suspects.show import lines, record

    with _client(options) as client:
        seen = client.suspects.get(suspect_id) if picture else None
        row = seen.row if seen else client.suspects.row(suspect_id)
        alike = client.suspects.similar(suspect_id, similar) if similar else ()
    suspect = seen.suspect if seen else None
    if picture and suspect is not None:
        _draw(picture, suspect)
    if as_json:
        told = record(row, suspect)
        click.echo(json.dumps({**told, "similar": [record(one) for one in alike]}, indent=1))
        return
    for line in lines(row, suspect):
        click.echo(line)
    if alike:
        click.echo("similar:")
        _tell(alike, as_json)


@suspects.command()
@click.argument("label", type=LABELS)
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@at
@click.option("--json", "as_json", is_flag=True, help="One JSON object per suspect.")
def label(label: Any, ids: Sequence[str], as_json: bool, **options: Any) -> None:
    """Say what the suspects ID are; `guard suspects undo` takes it back as one step.

    Example: guard suspects label benign 7gqe2kq5v3xk4mza5tq4b2nrwy
    """
    with _client(options) as client:
        _tell(client.suspects.label(ids, label), as_json)


@suspects.command()
@at
@click.option("--json", "as_json", is_flag=True, help="One JSON object per suspect.")
def undo(as_json: bool, **options: Any) -> None:
    """Take back your own last labelling.

    Example: guard suspects undo
    """
    with _client(options) as client:
        rows = client.suspects.undo()
    if not rows:
        note("there is nothing to take back")
    _tell(rows, as_json)


@suspects.command()
@at
@chosen
@click.option("--limit", type=click.IntRange(1, 100), default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per suspect.")
def claim(limit: int, as_json: bool, **options: Any) -> None:
    """Take open suspects that no other reviewer is given for a while.

    Example: guard suspects claim --limit 10
    """
    wanted, client_name = _wanted(options)
    with _client(options) as client:
        rows = client.suspects.claim(wanted, client_name=client_name, limit=limit)
    _tell(rows, as_json)


@suspects.command()
@click.argument("label", type=LABELS)
@click.argument("suspect_id", metavar="ID")
@at
def feedback(label: Any, suspect_id: str, **options: Any) -> None:
    """Say, as the client who sent it, what ID was: `benign` for a false alarm.

    Example: guard suspects feedback benign 7gqe2kq5v3xk4mza5tq4b2nrwy
    """
    with _client(options) as client:
        client.suspects.feedback(suspect_id, label)
    click.echo(f"{suspect_id}: noted")


@suspects.command()
@at
@chosen
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def counts(as_json: bool, **options: Any) -> None:
    """Count suspects, by how far their review is.

    Example: guard suspects counts --since 2026-11-20
    """
    wanted, client_name = _wanted(options)
    with _client(options) as client:
        found = client.suspects.counts(wanted, client_name=client_name)
    told = {"total": found.total, "bytes": found.bytes, **found.by_state, **found.by_label}
    if as_json:
        click.echo(json.dumps(told))
        return
    for name, value in told.items():
        click.echo(f"{name:12} {value:>12,}")


@suspects.command()
@click.argument("out", type=FILE)
@at
@chosen
@click.option("--json", "as_json", is_flag=True, help="A summary as JSON.")
def export(out: Path, as_json: bool, **options: Any) -> None:
    """Write suspects to the Parquet file OUT: pictures, evidence, labels, where each comes from.

    `guard.data.read` and the `datasets` library read it. What leaves the gateway is no longer
    erased by it: keep the ids, and delete the file when its purpose is done.

    Example: guard suspects export reviewed.parquet --state agreed
    """
    from guard.suspects.export import write_export

    wanted, client_name = _wanted(options)
    asked = {k: v for k, v in _facts(options).items() if k != "client_name"}
    notes = {"what": "suspects", "at": options["target"], "filter": asked, "taken": _now()}
    with _client(options) as client:
        found = client.suspects.export(wanted, client_name=client_name)
        count = write_export(out, found, notes)
    told = {"suspects": count, "file": str(out), "bytes": out.stat().st_size}
    click.echo(json.dumps(told) if as_json else f"{out}: {count} suspects")


@suspects.command()
@at
@chosen
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def erase(yes: bool, as_json: bool, **options: Any) -> None:
    """Destroy suspects for good: by --id, --client, --tenant, --until or any other filter.

    Example: guard suspects erase --client jwt:alice --yes
    """
    wanted, client_name = _wanted(options)
    facts = _facts(options)
    if not facts:
        raise click.UsageError("say which: --id, --client, --tenant, --until, ...")
    if not yes:
        said = ", ".join(f"{name} {value}" for name, value in facts.items())
        click.confirm(f"Destroy every suspect with {said}?", abort=True, err=True)
    with _client(options) as client:
        count = client.suspects.erase(wanted, client_name=client_name)
    click.echo(json.dumps({"erased": count}) if as_json else f"erased {count}")


@suspects.command()
@at
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def rotate(as_json: bool, **options: Any) -> None:
    """Make new keys, so that no backup opens what was erased.

    Example: guard suspects rotate
    """
    with _client(options) as client:
        count = client.suspects.rotate()
    told = f"wrapped the keys of {count} suspects anew"
    click.echo(json.dumps({"wrapped": count}) if as_json else told)


def _client(options: Mapping[str, Any]) -> Any:
    return closing(connect(options["target"], options))


def _facts(options: Mapping[str, Any]) -> dict[str, Any]:
    """What the filter's options say, by the filter's names."""
    names = (
        "ids", "model", "pack", "tenant", "client", "client_name", "predicted", "decision",
        "defense", "sampled", "label", "state", "taken_from", "taken_before", "p_value_at_most",
    )  # fmt: skip
    return {name: options[name] for name in names if options[name] not in (None, ())}


def _wanted(options: Mapping[str, Any]) -> tuple[Any, str | None]:
    """The filter, and the client's name."""
    from guard.suspects.record import Filter
    from guard.verdict import Decision

    facts = _facts(options)
    client_name = facts.pop("client_name", None)
    if "client" in facts and client_name is not None:
        raise click.UsageError("--client and --client-hash: give one")
    if "decision" in facts:
        facts["decision"] = Decision[facts["decision"].upper()]
    return Filter(**facts), client_name


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _tell(rows: Sequence[Any], as_json: bool) -> None:
    from guard.suspects.show import line, record

    for row in rows:
        click.echo(json.dumps(record(row)) if as_json else line(row))


def _draw(path: Path, suspect: Any) -> None:
    """The picture as a PNG file, readable by its owner alone."""
    from guard.suspects.export import png, write_private

    data, exact = png(suspect.image)
    write_private(path, data)
    note(f"wrote {path}" + ("" if exact else ", rounded to 8 bits"))
