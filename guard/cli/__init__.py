"""The command line. Every command is a few lines: the work is done elsewhere.

Exit status: 0 done, 1 it failed (one plain line says why), 2 misuse. One file holds the commands
of one kind; what a command needs is imported when it runs, so that serving needs no torch.
"""

import logging

import click

from guard import __version__
from guard.cli import (
    attack,
    audit,
    console,
    data,
    ensemble,
    evaluate,
    packs,
    promote,
    retrain,
    serving,
    stored,
    suspects,
    train,
)
from guard.cli.plain import Plain


@click.group(cls=Plain, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """The gateway in front of a production image classifier.

    Example: guard demo
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")


for _command in (
    serving.serve,
    serving.check,
    serving.inspect,
    serving.calibrate,
    serving.demo,
    train.train,
    packs.pack,
    retrain.retrain,
    promote.promote,
    promote.rollback,
    data.data,
    attack.attack,
    audit.audit,
    evaluate.evaluate,
    suspects.suspects,
    console.console,
):
    main.add_command(_command)
suspects.suspects.add_command(stored.backup)
suspects.suspects.add_command(stored.verify)
train.train.add_command(ensemble.ensemble)
evaluate.evaluate.add_command(ensemble.transfer)
