"""`guard train`: train classifiers."""

from pathlib import Path

import click

from guard.cli.pictures import read_parts
from guard.cli.plain import FOLDER, note


@click.group()
def train() -> None:
    """Train classifiers (needs the extra `train`)."""


@train.command()
@click.argument("data")
@click.option("--recipe", default="default", show_default=True, help="A pack's recipe.")
@click.option("--member", default="wide", show_default=True, help="Which of its classifiers.")
@click.option("--quick", is_flag=True, help="Few epochs and a small net, for trying things out.")
@click.option("--out", type=FOLDER, required=True, help="Checkpoints and MEMBER.onnx go here.")
@click.option("--limit", type=int, help="Pictures used at most.")
def classifier(
    data: str, recipe: str, member: str, quick: bool, out: Path, limit: int | None
) -> None:
    """Train one classifier; resumes where it was stopped, ends with an ONNX file.

    Example: guard train classifier signs --member sentinel --out work/production
    """
    from guard.training.single import train_one

    path = train_one(read_parts(data, limit), recipe, member, quick=quick, out=out, log=note)
    click.echo(str(path))
