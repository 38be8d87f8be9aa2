"""Black-box attacks through a live gateway: how soon they are seen, and what they still do.

python -m tests.bench.queries [--pack models/cifar10] [--data FOLDER] [--runs 200] [--success 0]
                              [--queries 300] [--only NAME ...] [--reach 0.12 0.08] [--json FILE]

The production classifier is the pack's sentinel, a standard-trained network, behind a gateway on
loopback that enforces its default policy for sequences (`on_attack = "cached"`). Every run attacks
another picture that the classifier has right; all runs and 2,000 honest queries share one memory.
flagged    runs seen before they ended, of --runs, and the query at which (median, 95th percentile)
success    of --success pictures: those whose classifier is fooled within 8/255 (L-inf; Boundary and
           HopSkipJump: L2 1.0) after --queries queries, without and with the watch
honest     queries of a data set's test pictures, each sent once: share in a flagged sequence
Square, SimBA and HopSkipJump are `guard.attacks`; Boundary is ART's where ART is installed; NES
(Ilyas et al. 2018) is written here.
"""

import argparse
import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from prometheus_client import REGISTRY
from torch import Tensor, nn

from guard import load_member
from guard.attacks.hopskipjump import hopskipjump
from guard.attacks.live import Live
from guard.attacks.simba import simba
from guard.attacks.square import square
from guard.cli.pictures import read_images
from guard.config.queries import Queries
from guard.pack import Pack
from guard.testing import gateway_config
from guard.training.export import export_classifier
from tests.bench.threaded import served

EPS, L2 = 8 / 255, 1.0
HONEST = 2000
Asking = Callable[[Tensor], Tensor]
Attack = Callable[[Asking, Tensor, Tensor, int], Tensor]


class EndError(Exception):
    """The run is over: it was flagged, or its queries are spent."""


class Box:
    """A live gateway as the attacker sees it, at most `limit` queries; keeps what was asked."""

    def __init__(self, live: Live, limit: int, *, until_flagged: bool) -> None:
        self._live, self._limit, self._until = live, limit, until_flagged
        self._before = flagged()
        self.asked, self.seen_at = 0, 0

    def __call__(self, points: Tensor) -> Tensor:
        """Answers, one request per query, as they really come."""
        answers = []
        for point in points:
            if self.asked >= self._limit:
                raise EndError
            answers.append(self._live(point[None]))
            self.asked += 1
            if not self.seen_at and flagged() > self._before:
                self.seen_at = self.asked
            if self.seen_at and self._until:
                raise EndError
        return torch.cat(answers) if answers else torch.zeros(0, CLASSES["count"])


def flagged() -> float:
    """Queries that the gateway has counted as attacks."""
    labels = {"model": "production"}
    return REGISTRY.get_sample_value("guard_query_attack_total", labels) or 0.0


def nes(
    ask: Asking, image: Tensor, label: Tensor, queries: int, *, sigma: float = 0.01, pairs: int = 10
) -> Tensor:
    """Gradients from the answers at opposite points (Ilyas et al. 2018), within EPS."""
    current = image.clone()
    for _ in range(queries // (2 * pairs)):
        noise = torch.randn(pairs, *image.shape[1:])
        both = torch.cat([current + sigma * noise, current - sigma * noise]).clamp(0, 1)
        loss = -ask(both).log_softmax(1)[:, label[0]]
        slope = ((loss[:pairs] - loss[pairs:])[:, None, None, None] * noise).sum(0)
        moved = current + EPS / 4 * slope.sign()
        current = (image + (moved - image).clamp(-EPS, EPS)).clamp(0, 1)
    return current


def boundary(ask: Asking, image: Tensor, label: Tensor, queries: int) -> Tensor:
    """ART's Boundary attack (Brendel et al. 2018)."""
    from art.attacks.evasion import BoundaryAttack
    from art.estimators.classification import BlackBoxClassifierNeuralNetwork

    def predict(points: NDArray[Any]) -> NDArray[np.float32]:
        answers: NDArray[np.float32] = ask(torch.tensor(points, dtype=torch.float32)).numpy()
        return answers

    shape = tuple(image.shape[1:])
    classifier = BlackBoxClassifierNeuralNetwork(
        predict, shape, CLASSES["count"], clip_values=(0.0, 1.0)
    )
    attack = BoundaryAttack(classifier, targeted=False, max_iter=queries, verbose=False)
    return torch.tensor(attack.generate(image.numpy(), label.numpy()))


CLASSES = {"count": 10}
ATTACKS: dict[str, Attack] = {
    "Square": lambda ask, x, y, n: square(as_module(ask), x, y, eps=EPS, queries=n),
    "NES": nes,
    "SimBA": lambda ask, x, y, n: simba(ask, x, y, eps=EPS, norm="linf", queries=n, levels=255),
    "HopSkipJump": lambda ask, x, y, n: hopskipjump(ask, x, y, queries=n, levels=255),
    "Boundary": boundary,
}
BY_LABEL = ("HopSkipJump", "Boundary")


def as_module(ask: Asking) -> nn.Module:
    """What `square` takes."""

    class Module(nn.Module):
        def forward(self, points: Tensor) -> Tensor:
            """One question per point."""
            return ask(points)

    return Module()


@contextlib.contextmanager
def gateway(pack: Path, upstream: Path, queries: Queries) -> Iterator[Live]:
    """A gateway in a thread of this process, and a client of it."""
    config = gateway_config(
        pack,
        upstream=f"onnx:{upstream}",
        name="production",
        mode="enforce",
        on_flag="annotate",
        queries=queries,
    )
    with served(config) as client:
        yield Live(client, "production", batch=1)


def attacked(attack: Attack, box: Box, image: Tensor, label: Tensor, queries: int) -> Tensor | None:
    """What the attack found; None where it did not get to its end."""
    try:
        return attack(box, image, label, queries)
    except EndError:
        return None


def fools(net: nn.Module, found: Tensor | None, image: Tensor, label: Tensor, name: str) -> bool:
    """Whether it is near enough, and the classifier itself is wrong on it."""
    if found is None:
        return False
    found = (found * 255).round() / 255
    change = found - image
    near = change.norm() <= L2 if name in BY_LABEL else change.abs().max() <= EPS + 1 / 255
    with torch.no_grad():
        return bool(near) and bool(net(found).argmax(1)[0] != label[0])


class Place(NamedTuple):
    """Where attacks are made: a pack, a classifier behind it, and pictures (N, C, H, W)."""

    pack: Path
    upstream: Path
    watch: Queries
    net: nn.Module
    images: Tensor
    labels: Tensor


def honest(place: Place) -> dict[str, float]:
    """Every picture sent once."""
    with gateway(place.pack, place.upstream, place.watch) as live:
        before = flagged()
        for image in place.images:
            live(image[None])
        share = (flagged() - before) / len(place.images)
    return {"queries": len(place.images), "flagged": share}


def seen(place: Place, name: str, chosen: Sequence[int], queries: int) -> dict[str, float]:
    """After how many queries runs are flagged."""
    at = []
    with gateway(place.pack, place.upstream, place.watch) as live:
        for image in place.images[-HONEST:]:
            live(image[None])
        for index in chosen:
            box = Box(live, queries, until_flagged=True)
            image, label = place.images[index][None], place.labels[index][None]
            attacked(ATTACKS[name], box, image, label, 1000)
            at.append((box.seen_at, box.asked))
    found = [first for first, _ in at if first]
    ended = [total for first, total in at if not first]
    return {
        "runs": len(at),
        "flagged": len(found) / len(at),
        "median": float(np.median(found)),
        "p95": float(np.quantile(found, 0.95)),
        "ended_before_the_alarm": sum(total < place.watch.alarm for total in ended),
    }


def success(place: Place, policy: Queries, name: str, chosen: Sequence[int], queries: int) -> float:
    """Share of the pictures on which the attack succeeds; nan for none."""
    won = []
    with gateway(place.pack, place.upstream, policy) as live:
        for index in chosen:
            box = Box(live, 10 * queries, until_flagged=False)
            image, label = place.images[index][None], place.labels[index][None]
            found = attacked(ATTACKS[name], box, image, label, queries)
            won.append(fools(place.net, found, image, label, name))
    return float(np.mean(won)) if won else float("nan")


def main() -> None:
    """Print a line per attack."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pack", type=Path, default=Path("models/cifar10"))
    parser.add_argument("--data", default="signs", help="pictures: Parquet, folders, or 'signs'")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--success", type=int, default=0)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--honest", type=int, default=10_000)
    parser.add_argument("--only", nargs="*", default=list(ATTACKS), choices=list(ATTACKS))
    parser.add_argument("--reach", type=float, nargs=2, default=[Queries().reach, 0.08])
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    net, pack = load_member(asked.pack, "sentinel"), Pack.load(asked.pack)
    CLASSES["count"] = len(pack.classes)
    data = read_images(asked.data, "test", limit=asked.honest, seed=0)
    images, labels = torch.tensor(data.pixels()), torch.tensor(np.asarray(data.labels)).long()
    with torch.no_grad():
        right = torch.cat([net(x).argmax(1) for x in torch.split(images, 500)]) == labels
    chosen = right.nonzero()[:, 0].tolist()
    watch = Queries(watch=True, reach=asked.reach[0], stretched_reach=asked.reach[1])
    written: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        upstream = Path(folder) / "production.onnx"
        export_classifier(net, upstream, shape=pack.input_shape)
        place = Place(asked.pack, upstream, watch, net, images, labels)
        written["honest"] = honest(place)
        print("honest", written["honest"], flush=True)
        for name in asked.only:
            row = seen(place, name, chosen[: asked.runs], asked.queries)
            for what, policy in (("success_without", Queries()), ("success_with", watch)):
                row[what] = success(place, policy, name, chosen[: asked.success], asked.queries)
            written[name] = row
            print(name, {k: round(v, 3) for k, v in row.items()}, flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(written, indent=1))


if __name__ == "__main__":
    main()
