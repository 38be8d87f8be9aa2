"""Copying a classifier through the gateway, and finding its training pictures, by what it answers.

python -m tests.bench.extraction --data FOLDER --strange FOLDER --victim FOLDER [--onnx FILE]
        [--pack models/gtsrb] [--queries 500 2000] [--epochs 15] [--json FILE]

copy    a small network learns from what a live gateway answers: `own`, pictures of the task that
        the classifier was not trained on; `strange`, pictures of something else (a knock-off, after
        Orekondy et al. 2019). Agreement = share of test pictures on which the copy and the
        classifier say the same
member  2,000 pictures that the classifier was trained on against 2,000 others, told apart by the
        probability of the true class (Yeom et al. 2018): area under the curve, and members found
        at 1% false alarms
Both for every way to answer in ANSWERS, `[models.output.harden]`.
"""

import argparse
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from guard.cli.pictures import read_images
from guard.client import Client
from guard.config import Output
from guard.config.harden import Harden
from guard.evaluation.detection import answers
from guard.gateway.blunt import blunt
from guard.networks import fuse
from guard.testing import gateway_config
from guard.training.classifier import load_classifier
from guard.training.parts import divide, pictures
from tests.bench.threaded import served

Floats = NDArray[np.float32]
BATCH, JUDGED = 64, 2000
ANSWERS = {
    "in full": Harden(),
    "2 decimals": Harden(decimals=2),
    "1 decimal": Harden(decimals=1),
    "top 1": Harden(top_k=1),
    "at most 0.9": Harden(most=0.9),
    "label only": Harden(label_only=True),
}
COPIED = ("in full", "2 decimals", "label only")


@contextlib.contextmanager
def gateway(pack: Path, upstream: Path, harden: Harden) -> Iterator[Client]:
    """A gateway in a thread of this process, and a client of it."""
    config = gateway_config(
        pack,
        upstream=f"onnx:{upstream}",
        name="production",
        mode="monitor",
        output=Output(kind="logits", harden=harden),
    )
    with served(config) as client:
        yield client


def asked(client: Client, images: Floats) -> Tensor:
    """What the gateway says of images (N, C, H, W), as probabilities that sum to one."""
    parts = []
    for start in range(0, len(images), BATCH):
        answer = client.infer("production", images[start : start + BATCH])
        logits = next(v for k, v in answer.outputs.items() if not k.startswith("guard_"))
        parts.append(torch.tensor(np.asarray(logits, np.float32)).softmax(1))
    return torch.cat(parts)


def small(classes: int) -> nn.Module:
    """The copy: four convolutions, 120,000 parameters."""

    def block(before: int, after: int) -> list[nn.Module]:
        convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]

    layers = [*block(3, 32), *block(32, 64), *block(64, 96), *block(96, 64)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


def copy(images: Tensor, answer: Tensor, epochs: int, seed: int) -> nn.Module:
    """A network that learned to answer like this, from images (N, C, H, W)."""
    torch.manual_seed(seed)
    net = small(answer.shape[1])
    steps = epochs * -(-len(images) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(BATCH):
            shift = torch.randint(-2, 3, (2,)).tolist()
            moved = torch.roll(images[rows], shift, (2, 3))
            loss = F.cross_entropy(net(moved), answer[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def copies(options: argparse.Namespace, victim: nn.Module, parts: Any) -> list[dict[str, Any]]:
    """Agreement by kind of query, answer and number."""
    random = np.random.default_rng(0)
    judged = pictures(parts.test, limit=JUDGED)
    test = judged.pixels(torch.arange(len(judged)))
    truth = answers(victim, test).argmax(1)
    most = max(options.queries)
    own = pictures(parts.calibrate, limit=most)
    foreign = read_images(options.strange, "train", limit=most, seed=0)
    turned = np.ascontiguousarray(foreign.images.transpose(0, 3, 1, 2))
    kinds = {
        "own": own.pixels(torch.arange(len(own))),
        "strange": torch.from_numpy(turned).float() / 255,
    }
    rows = []
    for name in COPIED:
        with gateway(options.pack, options.onnx, ANSWERS[name]) as client:
            said = {kind: asked(client, images.numpy()) for kind, images in kinds.items()}
        for kind, images in kinds.items():
            order = torch.from_numpy(random.permutation(len(images)))
            for count in options.queries:
                chosen = order[:count]
                net = copy(images[chosen], said[kind][chosen], options.epochs, seed=0)
                agreement = float((answers(net, test).argmax(1) == truth).mean())
                rows.append(
                    {"queries": kind, "answers": name, "count": count, "agreement": agreement}
                )
                line = f"{100 * agreement:.1f}% agreement"
                print(f"{kind}, {count} queries answered {name}: {line}", flush=True)
    return rows


def members(victim: nn.Module, parts: Any) -> dict[str, dict[str, float]]:
    """How well training pictures are told from others."""
    inside, outside = pictures(parts.fit, limit=JUDGED), pictures(parts.test, limit=JUDGED)
    said, labels = [], []
    for some in (inside, outside):
        said.append(answers(victim, some.pixels(torch.arange(len(some)))))
        labels.append(some.labels.numpy())
    truth = np.repeat([1, 0], [len(inside), len(outside)])
    whole, label = np.concatenate(said), np.concatenate(labels)
    found = {}
    for name, harden in ANSWERS.items():
        told = blunt(harden, whole) if name != "in full" else whole
        score = told[np.arange(len(told)), label].astype(np.float64)
        limit = np.quantile(score[truth == 0], 0.99, method="higher")
        found[name] = {
            "AUC": float(roc_auc_score(truth, score)),
            "TPR 0.01": float((score[truth == 1] > limit).mean()),
        }
        line = ", ".join(f"{key} {value:.3f}" for key, value in found[name].items())
        print(f"members, answered {name}: {line}", flush=True)
    return found


def main() -> None:
    """Print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--strange", required=True)
    parser.add_argument("--victim", type=Path, required=True)
    parser.add_argument("--onnx", type=Path)
    parser.add_argument("--pack", type=Path, default=Path("models/gtsrb"))
    parser.add_argument("--queries", type=int, nargs="+", default=[500, 2000])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.onnx = options.onnx or options.victim.with_suffix(".onnx")
    data = [read_images(options.data, split, limit=None, seed=0) for split in ("train", "test")]
    parts = divide(*data)
    victim = fuse(load_classifier(options.victim)).eval()
    report: dict[str, Any] = {"members": members(victim, parts)}
    report["copies"] = copies(options, victim, parts)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
