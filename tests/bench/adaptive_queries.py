"""A black-box attacker who knows the watch over queries and samples around it.

python -m tests.bench.adaptive_queries [--pack models/cifar10] [--data FOLDER] [--pictures 30]
                                       [--queries 1000 10000] [--json FILE]

After OARS (Feng et al., "Stateful Defenses for Machine Learning Models Are Not Yet Secure Against
Black-box Attacks", CCS 2023): NES (Ilyas et al. 2018) whose proposals are adapted until they do not
collide. Queries come in pairs, which alone raise no alarm; every pair is shown under another
transformation (shift, turn, light per channel, a wave of low frequency) that the classifier mostly
ignores; an answer from memory is recognised, its pair is thrown away and transformations become
stronger, else weaker. So the gradient is one in expectation over them.

The production classifier is the sentinel of the pack, in this process, behind the same `QueryWatch`
and cached answers as in the gateway (`on_attack = "cached"`, defaults). Success: on the picture
found, rounded to 8 bits and within 8/255 (L-inf), the classifier is wrong, after so many queries.
without   the same attacker, without transformations, where nobody watches
collided  share of the queries that were answered from memory
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample, interpolate

from guard import load_member
from guard.cli.pictures import read_images
from guard.config.queries import Queries
from guard.pack import Pack
from guard.traffic.memory import Reach
from guard.traffic.queries import QueryWatch

EPS = 8 / 255
SIGMA, PAIRS, STEP = 0.01, 10, EPS / 4
HONEST = 2000


class Watched:
    """The classifier as callers see it: answers, or the sequence's first once it is flagged."""

    def __init__(self, net: nn.Module, shape: tuple[int, int, int], *, watch: bool) -> None:
        settings = Queries()
        reach = Reach(settings.reach, settings.stretched_reach)
        self._net = net
        self._watch = None
        if watch:
            self._watch = QueryWatch(shape, secret=b"s" * 32, reach=reach, alarm=settings.alarm)
        self.asked = self.collided = 0

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, bool]:
        """Log-probabilities (N, K), and whether one of them came from memory."""
        self.asked += len(images)
        logits = self._net(images).log_softmax(1)
        if self._watch is None:
            return logits, False
        sightings = self._watch.look(images.numpy())
        for one, label in zip(sightings, logits.argmax(1).tolist(), strict=True):
            self._watch.answered(one, label)
        flagged = sum(one.flagged for one in sightings)
        self.collided += flagged
        return logits, bool(flagged)


def disguised(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Images (N, C, H, W), all under the same transformation; strength in [0, 1]."""

    def draw(*size: int) -> Tensor:
        return strength * (2 * torch.rand(size, generator=generator) - 1)

    angle, shift, zoom = draw(1) * math.radians(25), 0.25 * draw(2), 1 + 0.2 * draw(1)
    matrix = torch.stack([
        torch.cat([zoom * angle.cos(), -zoom * angle.sin(), shift[:1]]),
        torch.cat([zoom * angle.sin(), zoom * angle.cos(), shift[1:]]),
    ])  # fmt: skip
    grid = affine_grid(matrix[None].expand(len(images), -1, -1), list(images.shape), False)
    moved = grid_sample(images, grid, padding_mode="border", align_corners=False)
    channels, height, width = images.shape[1:]
    wave = interpolate(0.15 * draw(1, channels, 4, 4), (height, width), mode="bicubic")
    return (moved * (1 + 0.4 * draw(1, channels, 1, 1)) + 0.2 * draw(1, 1, 1, 1) + wave).clamp(0, 1)


def attack(
    net: nn.Module, ask: Watched, image: Tensor, label: int, limit: int, *, hidden: bool, seed: int
) -> int:
    """The queries after which the classifier is fooled; 0 where it is not within `limit`."""
    generator = torch.Generator().manual_seed(seed)
    current, strength, first = image.clone(), 0.5, ask.asked
    while ask.asked - first + 2 * PAIRS <= limit:
        slope, used = torch.zeros_like(image), 0
        while used < PAIRS and ask.asked - first + 2 <= limit:
            noise = torch.randn(image.shape, generator=generator)
            pair = torch.cat([current + SIGMA * noise, current - SIGMA * noise]).clamp(0, 1)
            if hidden:
                pair = disguised(pair, strength, generator)
            answers, remembered = ask(pair)
            if remembered and hidden:
                strength = min(1.0, strength * 1.05)
                continue
            strength *= 0.998
            loss = -answers[:, label]
            slope += (loss[0] - loss[1]) * noise
            used += 1
        moved = (current + STEP * slope.sign() - image).clamp(-EPS, EPS)
        current = (image + moved).clamp(0, 1)
        with torch.no_grad():
            found = (current * 255).round() / 255
            if int(net(found).argmax(1)[0]) != label:
                return ask.asked - first
    return 0


def main() -> None:
    """Print success at each number of queries."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pack", type=Path, default=Path("models/cifar10"))
    parser.add_argument("--data", default="signs", help="pictures: Parquet, folders, or 'signs'")
    parser.add_argument("--pictures", type=int, default=30)
    parser.add_argument("--queries", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    net, pack = load_member(chosen.pack, "sentinel"), Pack.load(chosen.pack)
    data = read_images(chosen.data, "test", limit=HONEST + 5 * chosen.pictures, seed=1)
    images, labels = torch.tensor(data.pixels()), torch.tensor(np.asarray(data.labels)).long()
    with torch.no_grad():
        right = (net(images[HONEST:]).argmax(1) == labels[HONEST:]).nonzero()[:, 0] + HONEST
    found: dict[str, dict[str, float]] = {}
    for name, watch in (("without", False), ("watched", True)):
        ask = Watched(net, pack.input_shape, watch=watch)
        for image in torch.split(images[:HONEST], 50):
            ask(image)
        ask.asked = ask.collided = 0
        at = []
        for index in right[: chosen.pictures].tolist():
            limit = max(chosen.queries)
            at.append(attack(
                net, ask, images[index][None], int(labels[index]), limit, hidden=watch, seed=index
            ))  # fmt: skip
            print(name, len(at), "fooled after" if at[-1] else "stands", at[-1] or "", flush=True)
        row = {f"success {n}": float(np.mean([0 < q <= n for q in at])) for n in chosen.queries}
        found[name] = {**row, "pictures": len(at), "collided": ask.collided / max(ask.asked, 1)}
        print(name, found[name], flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
