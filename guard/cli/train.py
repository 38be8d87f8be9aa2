"""`guard train`: train classifiers."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from guard.cli.pictures import read_parts
from guard.cli.plain import FOLDER, note
from guard.errors import ConfigError


@click.group()
def train() -> None:
    """Train classifiers (needs the extra `train`)."""


@train.command()
@click.argument("data")
@click.option("--recipe", default="default", show_default=True, help="A pack's, or one's own.")
@click.option("--member", default="wide", show_default=True, help="Which classifier of a pack.")
@click.option("--set", "changes", multiple=True, metavar="FIELD=VALUE", help="Change the recipe.")
@click.option("--passes", type=float, help="Epochs for so many passes per picture, instead.")
@click.option("--quick", is_flag=True, help="Few epochs and a small net, for trying things out.")
@click.option("--out", type=FOLDER, required=True, help="Checkpoints and NAME.onnx go here.")
@click.option("--limit", type=int, help="Pictures used at most.")
@click.option("--held", help="Judge by these pictures; their twins in DATA are left out.")
@click.option("--extra", help="More pictures to train on, real or generated.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:1.")
@click.option("--compile", "compiled", is_flag=True, help="torch.compile, for long runs on a GPU.")
@click.option("--private-noise", type=float, help="DP-SGD: noise, in clips (extra `private`).")
@click.option("--private-clip", type=float, default=1.0, help="DP-SGD: longest gradient.")
@click.option("--private-delta", type=float, default=1e-5, help="DP-SGD: the bound's delta.")
def classifier(data: str, out: Path, device: str, compiled: bool, **options: Any) -> None:
    """Train one classifier; resumes where it was stopped, ends with an ONNX file.

    Recipes are those of the packs (gtsrb, signs, cifar10) and, one by one, standard, nfgsm, pgd,
    trades, trades-awp, mart and adaptive with its ablations. `torchrun --nproc-per-node 2 -m guard`
    in the place of `guard` trains on two GPUs.

    Example: guard train classifier signs --member sentinel --out work/production

    Example: guard train classifier torchvision:cifar10 --recipe trades-awp --set eps=8/255
    --set architecture=resnet --set options.depth=18 --set width=64 --out work/resnet18
    """
    from guard.training.classifier import Machine
    from guard.training.parallel import local_device, team
    from guard.training.single import Order, train_one

    limit, held, extra = (options.pop(name) for name in ("limit", "held", "extra"))
    noise, *rest = (options.pop(f"private_{name}") for name in ("noise", "clip", "delta"))
    private = None if noise is None else (noise, *rest)
    if private and find_spec("opacus") is None:
        raise ConfigError("DP-SGD needs Opacus: pip install 'guard[private]'", key="private-noise")
    with team(local_device(device)) as mine:
        with mine.lead_first():  # it may have to download
            parts = read_parts(data, limit, held=held, extra=extra)
        with progress(mine.leads) as (tick, say):
            machine = Machine(device=local_device(device), team=mine, compiled=compiled, tick=tick)
            path = train_one(
                parts, Order(**options, private=private), out=out, machine=machine, log=say
            )
        if mine.leads:
            click.echo(str(path))


@contextmanager
def progress(shown: bool) -> Iterator[tuple[Callable[[float], None], Callable[[str], None]]]:
    """A bar with the last line beside it on a terminal; the lines alone anywhere else."""
    if not (shown and sys.stderr.isatty()):
        yield (lambda _share: None), note
        return
    last = [""]
    bar: Any
    with click.progressbar(
        length=1000, file=sys.stderr, show_eta=True, item_show_func=lambda _item: last[0]
    ) as bar:

        def tick(share: float) -> None:
            bar.update(max(round(1000 * share) - bar.pos, 0))

        def say(line: str) -> None:
            last[0] = line
            bar.update(0)

        yield tick, say
