"""What all commands have: errors in one line, notes on the error stream, kinds of paths."""

from pathlib import Path
from typing import Any

import click

from guard.errors import ConfigError, GuardError

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)


class Plain(click.Group):
    """A group whose errors are one line, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; expected failures become an exit status."""
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            click.echo(f"guard: {error}", err=True)
            ctx.exit(2)
        except GuardError as error:
            click.echo(f"guard: {error}", err=True)
            ctx.exit(1)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in ("torch", "onnx", "pyarrow"):
                raise
            text = f"guard: this needs {error.name}: pip install 'guard[train]'"
            click.echo(text, err=True)
            ctx.exit(1)


def note(line: str) -> None:
    """Progress, on the error stream."""
    click.echo(line, err=True)
