"""Settings of the review console, `[console]`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct, structs

from guard.config.access import ServerTls, is_loopback
from guard.config.suspects import Suspects


class Console(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where people review suspects in a browser, and how they log in."""

    listen: Annotated[
        str,
        Meta(
            description="HOST:PORT where the gateway serves the console itself; empty: it does not"
        ),
    ] = ""
    users_file: Annotated[
        str,
        Meta(
            description="file of who may log in, made by `guard console adduser`; empty: only the"
            " gateway's tokens"
        ),
    ] = ""
    origin: Annotated[
        str,
        Meta(
            description="`https://HOST` that browsers see where a proxy stands in front; empty: the"
            " console is asked directly"
        ),
    ] = ""
    session_hours: Annotated[
        float, Meta(gt=0, le=168, description="hours after which a person has to log in again")
    ] = 10.0
    idle_minutes: Annotated[
        float, Meta(gt=0, le=1440, description="minutes without a click after which they have to")
    ] = 60.0


def console_problems(
    console: Console, suspects: Suspects, tls: ServerTls, *, tokens: bool, insecure: bool
) -> Iterator[tuple[str, str]]:
    """Settings that contradict each other: key and complaint; `tokens`: the gateway takes them."""
    if not console.listen:
        return
    if not suspects.enabled:
        yield "console.listen", "there is nothing to review: set suspects.folder"
    if not console.users_file and not tokens:
        yield "console.users_file", "must be set: nobody could log in"
    if console.origin and not _is_origin(console.origin):
        yield "console.origin", "must be https://HOST or http://HOST, without a path"
    if not is_loopback(console.listen) and not tls.cert and not insecure:
        yield (
            "console.listen",
            f"passwords would cross the network at {console.listen} unencrypted: set gateway.tls,"
            " or say gateway.insecure = true",
        )
    folder = Path(suspects.folder).absolute()
    if (
        console.users_file
        and suspects.folder
        and folder in Path(console.users_file).absolute().parents
    ):
        yield "console.users_file", "must not lie in the suspects' own folder"


def console_at(console: Console, at: Callable[[str], str]) -> Console:
    """The same settings with paths made by `at`."""
    return structs.replace(console, users_file=at(console.users_file))


def _is_origin(text: str) -> bool:
    scheme, _, host = text.partition("://")
    return scheme in ("https", "http") and bool(host) and not set(host) & set("/?#@ ")
