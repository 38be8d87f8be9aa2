"""Everything set up for the demo: a trained production model served, the gateway in front of it."""

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from guard.client import Client
from guard.data import ImageSet, signs
from guard.demo import processes, traffic
from guard.demo.processes import running
from guard.demo.production import RECIPE, export, train_production
from guard.errors import PackError
from guard.networks import parameters
from guard.pipeline import Pipeline
from guard.training.calibrate import calibrate, write

Say = Callable[[str], None]

BUDGET = 0.01  # false alarms among clean pictures
FIRST_SEED = 9_000_000  # far from the seeds that packs are made from


@dataclass(frozen=True)
class Effort:
    """How many pictures and steps. `attacked` pictures per attack; a sticker on all STOP signs."""

    train: int = 4600
    epochs: int = 10
    calibrate: int = 2500
    fresh: int = 1080
    attacked: int = 200
    steps: int = 20
    sticker_steps: int = 100


QUICK = Effort(1600, 6, 300, 180, 16, 8, 40)


@dataclass(frozen=True)
class Stage:
    """What the attack rounds work with."""

    network: nn.Module  # production, as its attacker holds it
    own: ImageSet  # pictures that the attacker holds too
    fresh: ImageSet  # pictures nobody has seen
    direct: Client  # production itself
    gateway: Client  # production behind guard
    metrics_port: int
    pack: str
    digest: str

    def about_production(self) -> dict[str, str | int]:
        """For the report."""
        return {
            "architecture": f"{RECIPE.architecture} {RECIPE.width} {RECIPE.activation}",
            "parameters": parameters(self.network),
            "training_pictures": len(self.own),
        }


@contextmanager
def set_up(pack: Path, effort: Effort, *, seed: int, say: Say) -> Iterator[Stage]:
    """Train, serve, calibrate, guard; everything is gone when the `with` ends.

    Raises PackError when the pack cannot be trusted or is not one of procedural signs.
    """
    secret = hashlib.sha256(f"guard demo {seed}".encode()).hexdigest().encode()
    pipeline = Pipeline.load(pack, max_false_positive_rate=BUDGET, secret=secret)
    if pipeline.classes != signs.CLASSES or pipeline.input_shape != (3, 32, 32):
        raise PackError(f"{pack} is not a pack of the 32x32 procedural signs")
    own, clean, fresh = (FIRST_SEED + 10 * seed + part for part in range(3))
    ports = [processes.free_port() for _ in range(3)]
    with ExitStack() as stack:
        stack.enter_context(_one_thread())
        stack.enter_context(processes.no_proxy())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="guard-demo-")))
        say(f"[1/4] training production, an undefended classifier, on {effort.train} signs")
        pictures = signs.make(effort.train, seed=own)
        network = train_production(pictures, epochs=effort.epochs, seed=seed, say=say)
        model = export(network, folder / "production.onnx", pictures)
        say("[2/4] serving it, in its own process, over the Open Inference Protocol")
        direct = stack.enter_context(
            running(
                processes.production(model, port=ports[0]), port=ports[0], log=folder / "server.log"
            )
        )
        say(f"[3/4] the gateway in front: calibrating for it on {effort.calibrate} clean signs")
        _calibrate(pipeline, signs.make(effort.calibrate, seed=clean), direct, folder)
        (folder / "secret").write_bytes(secret)
        config = processes.write_config(
            folder / "guard.toml",
            pack=pack.resolve(), upstream=ports[0], listen=ports[1], metrics=ports[2],
            budget=BUDGET,
        )  # fmt: skip
        gateway = stack.enter_context(
            running(processes.gateway(config), port=ports[1], log=folder / "gateway.log")
        )
        yield Stage(
            network, pictures, signs.make(effort.fresh, seed=fresh), direct, gateway, ports[2],
            pipeline.pack.name, pipeline.pack.digest,
        )  # fmt: skip


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch on one thread: the same numbers on any number of cores, and no fight for them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _calibrate(pipeline: Pipeline, clean: ImageSet, direct: Client, folder: Path) -> None:
    entries = calibrate(
        pipeline,
        clean,
        ask=lambda part: traffic.probabilities(direct, part.transpose(0, 3, 1, 2)),
        about={"data": "procedural signs", "upstream": "the demo's production model"},
    )
    write(folder / "calibration.npz", entries)
