"""Options for a connection to a live server: TLS, our own certificate, a token.

A token is given as a file: what stands on a command line is seen by everybody on the machine, and
some commands write theirs into their results. The file is read before each call.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from guard.cli.plain import FILE
from guard.errors import ConfigError

Command = TypeVar("Command", bound=Callable[..., Any])


def connecting(command: Command) -> Command:
    """Add the options to a command."""
    for option in (
        click.option("--token-file", type=FILE, help="A token that says who we are, in this file."),
        click.option("--key", type=FILE, help="Our certificate's private key, PEM."),
        click.option("--cert", type=FILE, help="Our certificate, PEM, where the server wants one."),
        click.option("--ca", type=FILE, help="Authorities to trust, PEM; implies TLS."),
        click.option("--tls", is_flag=True, help="TLS with the system's authorities."),
    ):
        command = option(command)
    return command


def connect(target: str, options: Mapping[str, Any]) -> Any:
    """A client of HOST:PORT by these options."""
    from guard.client import Client

    path: Path | None = options["token_file"]
    return Client(
        target,
        tls=options["tls"],
        ca=options["ca"],
        cert=options["cert"],
        key=options["key"],
        token=None if path is None else lambda: _token(path),
    )


def _token(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--token-file: {path} cannot be read", key="token-file") from error
