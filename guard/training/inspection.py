"""What a trained classifier tells about its own training set: wrong labels, planted triggers.

Three small classifiers are trained for a few epochs: one on the whole set, whose features are
searched for triggers, and one on each half, so that every picture is judged by a classifier that
never saw it. Groups stay together. What they find: `guard.data.labelnoise`, `triggers`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from guard.data import ImageSet
from guard.data.findings import Finding, Level, counted
from guard.data.labelnoise import Suspects, confident_learning
from guard.data.scan import Scan
from guard.errors import InputError
from guard.networks import Network
from guard.training.augment import Augment
from guard.training.classifier import load_classifier, train
from guard.training.parts import pictures
from guard.training.pictures import Pictures
from guard.training.recipe import Recipe
from guard.training.triggers import Trigger, find_triggers

Log = Callable[[str], None]
Floats = NDArray[np.float32]

SCOUT = Recipe("broad", 8, grid=4, attacks={}, augment=Augment(), batch=64, peak_rate=0.1, ema=0.9)
START, PER_PICTURE = 12_000, 3  # pictures a training sees: so many, and so many times the set
CANARIES = 4  # the trainer asks for some; what they say is not used
SURE = -0.8  # margin below which a label is called wrong
NOISY = 0.015  # share of sure ones from which it is serious; GTSRB as published has 0.007
WEAK = 0.8  # agreement with the labels below which nothing is called serious; CIFAR-10 has 0.67
BATCH = 512


@dataclass(frozen=True)
class Inspection:
    """How to look. quick: a third of the training. checkpoint: a classifier to take the features
    from, as `guard train` left it, instead of training one on the whole set."""

    quick: bool = False
    checkpoint: Path | None = None
    seed: int = 0
    log: Log = lambda _line: None


def inspect(train_scan: Scan, test_scan: Scan | None, how: Inspection) -> list[Finding]:
    """Triggers in the training split, wrong labels in both."""
    images = train_scan.pictures
    if len(images) < 4 or len(np.unique(images.labels)) < 2:
        return [Finding("labels", "note", "too few pictures or classes to train on")]
    triggers = planted(images, how)
    found = [_trigger_finding(train_scan, one) for one in triggers]
    known = np.zeros(len(images), bool)
    for one in triggers:
        known[one.suspects] = True
    tests = None if test_scan is None or not _fits(images, test_scan) else test_scan.pictures
    ours, theirs = judged(images, tests, how)
    found += _label_findings(train_scan, ours, skip=known)
    if test_scan is not None and theirs is not None:
        found += _label_findings(test_scan, theirs, skip=np.zeros(len(test_scan), bool))
    return found


def planted(images: ImageSet, how: Inspection) -> list[Trigger]:
    """Triggers that a classifier trained on the pictures has learned."""
    if how.checkpoint is None:
        how.log("training on the whole set, to look for planted triggers")
        network = scout(images, how)
    else:
        network = _loaded(how.checkpoint, images)
    _, features = answers(network, images.images)
    how.log("searching every class for a trigger")
    return find_triggers(
        images.images,
        images.labels,
        features,
        lambda batch: answers(network, batch)[0].argmax(1),
        rng=np.random.default_rng(how.seed),
    )


def judged(
    images: ImageSet, test: ImageSet | None, how: Inspection
) -> tuple[Floats, Floats | None]:
    """Probabilities (N, K) of each picture, and of the test pictures, by strangers to them."""
    halves = _halves(images, np.random.default_rng(how.seed))
    out = np.zeros((len(images), len(images.classes)), np.float32)
    shown = None if test is None else np.zeros((len(test), len(images.classes)), np.float32)
    for number, mine in enumerate((halves, ~halves)):
        how.log(f"training on half {number + 1} of 2, to judge the labels of the other")
        network = scout(images.subset(mine), replace(how, seed=how.seed + 1 + number))
        out[~mine] = answers(network, images.images[~mine])[0]
        if test is not None and shown is not None:
            shown += answers(network, test.images)[0] / 2
    return out, shown


def scout(images: ImageSet, how: Inspection) -> Network:
    """A small classifier, quickly trained on these pictures alone."""
    seen = (START + PER_PICTURE * len(images)) / (3 if how.quick else 1)
    recipe = replace(
        SCOUT,
        channels=images.shape[0],
        batch=min(64 if len(images) < 20_000 else 128, len(images)),
        epochs=max(1, round(seen / len(images))),
        seed=how.seed,
    )
    held = pictures(images, limit=CANARIES, seed=how.seed)
    network: Network = train(recipe, pictures(images), held, len(images.classes))
    return network


@torch.no_grad()
def answers(network: Network, images: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Probabilities (N, K) and penultimate features (N, F) of pictures (N, H, W, C)."""
    tensor = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    held = Pictures(tensor, torch.zeros(len(images), dtype=torch.int64))
    shares, features = [], []
    for index in torch.split(torch.arange(len(images)), BATCH):
        hidden = network.penultimate(held.pixels(index))
        features.append(hidden)
        shares.append(network.head(hidden).softmax(1))
    return torch.cat(shares).numpy(), torch.cat(features).numpy()


def _halves(images: ImageSet, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which pictures (N,) are in the first half; each class's groups are dealt out evenly."""
    names = np.arange(len(images)) if images.groups is None else images.groups
    groups, first, member = np.unique(names, return_index=True, return_inverse=True)
    order = rng.permutation(len(groups))
    order = order[np.argsort(images.labels[first][order], kind="stable")]
    half = np.empty(len(groups), bool)
    half[order] = np.arange(len(groups)) % 2 == 0
    return half[member.reshape(-1)]


def _loaded(folder: Path, images: ImageSet) -> Network:
    network = load_classifier(folder)
    probe = images.images[:1]
    try:
        found = answers(network, probe)[0].shape[1]
    except RuntimeError as error:
        raise InputError(f"{folder}: does not take pictures of {images.shape}") from error
    if found != len(images.classes):
        raise InputError(f"{folder}: {found} classes, the pictures have {len(images.classes)}")
    return network


def _fits(images: ImageSet, test: Scan) -> bool:
    return images.shape == test.pictures.shape and images.classes == test.pictures.classes


def _trigger_finding(scan: Scan, one: Trigger) -> Finding:
    images, name = scan.pictures, scan.pictures.classes[one.label]
    size = int((images.labels == one.label).sum())
    share = len(one.suspects) / size
    text = (
        f"a planted trigger to {name!r}: {counted(len(one.suspects), 'picture')} of {scan.split}, "
        f"{share:.0%} of the class; laid over others it turns {one.turned:.0%} of them into "
        f"{name!r}, without it {one.freed:.0%} of the suspects are something else"
    )
    figures = {
        "class": name,
        "share_of_class": share,
        "share_of_split": len(one.suspects) / len(images),
        "sure": one.sure,
        "turned": one.turned,
        "freed": one.freed,
        "search": one.search,
    }
    pairs = zip(one.suspects, one.scores, strict=True)
    items = [scan.item(int(k), score, f"carries what leads to {name}") for k, score in pairs]
    rest = np.setdiff1d(np.flatnonzero(images.labels == one.label), one.suspects)
    exhibits = [
        ("their average", _average(images.images[one.suspects])),
        ("the rest's", _average(images.images[rest])),
    ]
    return Finding("trigger", "serious", text, figures, items, exhibits)


def _average(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    mean: NDArray[np.uint8] = images.mean(0).round().astype(np.uint8)
    return mean


def _label_findings(
    scan: Scan, probabilities: Floats, *, skip: NDArray[np.bool_]
) -> Iterator[Finding]:
    labels, names = scan.pictures.labels, scan.pictures.classes
    judged = confident_learning(probabilities, labels)
    right = float((probabilities.argmax(1) == labels).mean())
    sure = np.flatnonzero(judged.off & ~skip & (judged.margin < SURE))
    sure = sure[np.argsort(judged.margin[sure], kind="stable")]
    share, possible = len(sure) / len(scan), float((judged.off & ~skip).mean())
    text = (
        f"{counted(len(sure), 'label')} of {scan.split} ({share:.2%}) look wrong, "
        f"{possible:.2%} might be; the classifiers that say so agree with {right:.0%} of the labels"
    )
    if mixed := _most_mixed(judged, names):
        text += f"; most often {mixed}"
    serious = share > NOISY and right >= WEAK
    level: Level = "serious" if serious else "warning" if len(sure) else "note"
    figures = {"sure": share, "possible": possible, "agreement": right}
    items = [
        scan.item(
            int(k),
            -float(judged.margin[k]),
            f"labelled {names[labels[k]]}, looks like {names[judged.suggested[k]]}",
        )
        for k in sure
    ]
    yield Finding("labels", level, text, figures, items)


def _most_mixed(judged: Suspects, names: tuple[str, ...]) -> str:
    """The pair of classes that is confused most often, in words."""
    off = judged.joint.copy()
    np.fill_diagonal(off, 0)
    given, seen = np.unravel_index(int(off.argmax()), off.shape)
    return f"{names[seen]!r} labelled {names[given]!r}" if off.max() > 1 else ""
