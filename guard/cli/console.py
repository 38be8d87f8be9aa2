"""`guard console`: the review console, and who may log in to it."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from guard.cli.plain import FILE
from guard.config import load_config
from guard.errors import ConfigError, GuardError


class Serving(click.Group):
    """A group whose command may be left out: `guard console guard.toml`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """`serve` is meant where no command is named."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["serve", *args]
        return super().parse_args(ctx, args)


@click.group(cls=Serving)
def console() -> None:
    """Serve the review console of guard.toml, or say who may log in.

    Example: guard console guard.toml
    """


@console.command()
@click.argument("config", type=FILE)
def serve(config: Path) -> None:
    """Serve the console alone, beside a running gateway, until SIGINT or SIGTERM.

    Example: guard console guard.toml
    """
    settings = load_config(config)
    needed()
    from guard.console.standalone import serve as run

    run(settings, announce=click.echo)


@console.command()
@click.argument("name")
@click.option("--role", "roles", multiple=True, help="analyst, operator, trainer, privacy, ...")
@click.option("--tenant", default="", help="Only this tenant's suspects; default: all of them.")
@click.option("--users", type=FILE, default="console-users.json", show_default=True)
@click.option("--password-file", type=FILE, help="The password, in this file; default: ask.")
def adduser(
    name: str, roles: tuple[str, ...], tenant: str, users: Path, password_file: Path | None
) -> None:
    """Let NAME log in with these roles; somebody who may already gets another password.

    Example: guard console adduser ada --role analyst --users console-users.json
    """
    from guard.console.users import User, check_name, check_password, hashed, write_users
    from guard.gateway.identity import ROLES

    check_name(name)
    given = roles or ("analyst",)
    for role in given:
        if role not in ROLES:
            raise ConfigError(f"--role: {role!r} is none of {', '.join(ROLES)}", key="role")
    known = _known(users)
    password = _password(password_file)
    check_password(password)
    known[name] = User(name, tuple(given), tenant, hashed(password))
    write_users(users, list(known.values()))
    click.echo(f"{users}: {name} is {', '.join(given)}")


@console.command()
@click.argument("name")
@click.option("--users", type=FILE, default="console-users.json", show_default=True)
def deluser(name: str, users: Path) -> None:
    """Let NAME log in no more; whoever is logged in by that name is logged out.

    Example: guard console deluser ada --users console-users.json
    """
    from guard.console.users import write_users

    known = _known(users)
    if known.pop(name, None) is None:
        raise GuardError(f"{users}: there is no {name[:64]!r}")
    write_users(users, list(known.values()))
    click.echo(f"{users}: {name} is gone")


def needed() -> None:
    """Raise GuardError where the console's packages are not installed."""
    for name in ("jinja2", "starlette", "uvicorn"):
        if find_spec(name) is None:
            raise GuardError(f"the console needs {name}: pip install 'guard[console]'")


def beside(config: Any) -> Any:
    """What a gateway with these settings runs beside itself: the console, or None."""
    if not config.console.listen:
        return None
    needed()
    from guard.console.serving import beside as run

    @asynccontextmanager
    async def started(gateway: Any) -> AsyncIterator[None]:
        async with run(gateway, config) as port:
            click.echo(f"console at {port.url}")
            yield

    return started


def _known(users: Path) -> dict[str, Any]:
    from guard.console.users import read_users

    return read_users(users) if users.exists() else {}


def _password(path: Path | None) -> str:
    if path is not None:
        try:
            return path.read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--password-file: {path} cannot be read") from error
    if not sys.stdin.isatty():
        raise ConfigError("no terminal to ask for a password: use --password-file")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
