"""Detection by the served pipeline: who is flagged among the attacks that fool the classifier.

TPR = share flagged among attacks that, after rounding to 8 bits, still fool a production model
which had the original right. The production model is neither a member nor the one the detector
learned from.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from guard.attacks import round8
from guard.attacks.cw import cw
from guard.attacks.deepfool import deepfool
from guard.attacks.fgsm import fgsm
from guard.attacks.pgd import pgd
from guard.evaluation.corruptions import REPORTED
from guard.pipeline import Pipeline

Attack = Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]
Floats = NDArray[np.float32]
BUDGETS = (0.05, 0.01)


def linf(eps: float, *, loss: str = "ce") -> Attack:
    """PGD-20 with steps of eps/8 and one random start; eps in 1/255."""

    def attack(net: nn.Module, x: Tensor, y: Tensor, g: torch.Generator) -> Tensor:
        size = eps / 255
        return pgd(net, x, y, eps=size, steps=20, step=size / 8, loss=loss, generator=g)  # type: ignore[arg-type]

    return attack


STATIC: Mapping[str, Attack] = {
    "FGSM 4/255": lambda net, x, y, g: fgsm(net, x, y, eps=4 / 255),  # noqa: ARG005
    "FGSM 8/255": lambda net, x, y, g: fgsm(net, x, y, eps=8 / 255),  # noqa: ARG005
    "PGD-20 4/255": linf(4),
    "PGD-20 8/255": linf(8),
    "DeepFool L2": lambda net, x, y, g: deepfool(net, x, y),  # noqa: ARG005
    "CW L2": lambda net, x, y, g: cw(net, x, y, steps=100, searches=4),  # noqa: ARG005
}


@dataclass(frozen=True)
class Fooled:
    """Attacks that work: rounded to 8 bits, wrong for the production model, right before."""

    images: Tensor  # (R, C, H, W)
    labels: Tensor  # (R,), the true ones
    tried: int  # images that the production model had right


def attack_production(
    production: nn.Module,
    attack: Attack,
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator,
) -> Fooled:
    """Attack the images (N, C, H, W) that `production` has right; keep the attacks that work."""
    found, truth, tried = [images[:0]], [labels[:0]], 0
    for x, y in zip(torch.split(images, 128), torch.split(labels, 128), strict=True):
        right = _labels(production, x) == y
        x, y = x[right], y[right]
        tried += len(x)
        if len(x):
            attacked = round8(attack(production, x, y, generator)).detach()
            wrong = _labels(production, attacked) != y
            found.append(attacked[wrong])
            truth.append(y[wrong])
    return Fooled(torch.cat(found), torch.cat(truth), tried)


def strike(
    production: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    seed: int = 0,
    log: Callable[[str], None] = lambda _line: None,
) -> dict[str, Fooled]:
    """Every attack in STATIC on images (N, C, H, W), by name."""
    found = {}
    for name, attack in STATIC.items():
        generator = torch.Generator().manual_seed(seed)
        found[name] = attack_production(production, attack, images, labels, generator)
        log(f"{name}: {len(found[name].images)} of {found[name].tried} fool the classifier")
    return found


def answers(production: nn.Module, images: Tensor) -> Floats:
    """The production model's class probabilities (N, K)."""
    with torch.no_grad():
        parts = [production(x).softmax(1) for x in torch.split(images, 256)]
    return torch.cat(parts).numpy().astype(np.float32)


@dataclass(frozen=True)
class Seen:
    """What the served pipeline made of N images."""

    p_values: Floats  # (N,), with the production model's answer where there is one
    scores: Floats  # (N,), the detector's
    alone: Floats  # (N,), p-values without that answer
    alone_scores: Floats  # (N,)
    labels: NDArray[np.int64]  # (N,), the robust ensemble's


def examine(pipeline: Pipeline, images: Tensor, upstream: Floats | None) -> Seen:
    """Evidence once, judged with and without the production model's answer (N, K)."""
    pixels = images.numpy().astype(np.float32)
    columns: list[list[NDArray[np.generic]]] = [[] for _ in range(5)]
    for start in range(0, len(pixels), 64):
        part = slice(start, start + 64)
        evidence = pipeline.evidence(pixels[part])
        alone = pipeline.judge(evidence)
        both = alone if upstream is None else pipeline.judge(evidence, upstream[part])
        row = (both.p_values, both.scores[:, -1], alone.p_values, alone.scores[:, -1])
        for column, values in zip(columns, (*row, evidence.probabilities.argmax(1)), strict=True):
            column.append(values)
    joined = [np.concatenate(column) for column in columns]
    first, second, third, fourth = (values.astype(np.float32) for values in joined[:4])
    return Seen(first, second, third, fourth, joined[4].astype(np.int64))


def detection(
    pipeline: Pipeline,
    production: nn.Module,
    images: Tensor,
    struck: Mapping[str, Fooled],
    *,
    log: Callable[[str], None] = lambda _line: None,
) -> dict[str, dict[str, float]]:
    """Per attack: successes, TPR at each budget with and without the upstream's answer, AUROC
    against the clean `images` (N, C, H, W), and the share on which the robust ensemble is right.

    struck: what `strike` made of pictures that were unseen by everything.
    """
    clean = examine(pipeline, images, answers(production, images))
    table = {}
    for name, fooled in struck.items():
        table[name] = row = _row(pipeline, production, fooled, clean)
        log(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in row.items()))
    return table


def false_alarms(
    pipeline: Pipeline,
    production: nn.Module,
    images: Tensor,
    *,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Share of benign images flagged at each budget, with its interval.

    All of them clean, the first 2000 under every corruption.
    """
    table = {"clean": _alarms(pipeline, production, images)}
    some = images[:2000]
    for name, corruption in REPORTED.items():
        worse = round8(corruption(some, torch.Generator().manual_seed(seed)))
        table[name] = _alarms(pipeline, production, worse)
    return table


def interval(hits: int, count: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson interval of a share; (0, 1) for no images."""
    if not count:
        return 0.0, 1.0
    found = stats.binomtest(hits, count).proportion_ci(confidence, method="exact")
    return float(found.low), float(found.high)


def auroc(positive: Floats, negative: Floats) -> float:
    """Area under the ROC curve, ties counted half (Mann-Whitney); NaN without positives."""
    if not len(positive) or not len(negative):
        return float("nan")
    statistic = stats.mannwhitneyu(positive, negative).statistic
    return float(statistic) / (len(positive) * len(negative))


def _row(
    pipeline: Pipeline, production: nn.Module, fooled: Fooled, clean: Seen
) -> dict[str, float]:
    count = len(fooled.images)
    row: dict[str, float] = {"tried": fooled.tried, "fooled": count}
    if not count:
        return row
    seen = examine(pipeline, fooled.images, answers(production, fooled.images))
    for budget in BUDGETS:
        row[f"TPR {budget:g}"] = float((seen.p_values <= budget).mean())
        row[f"alone TPR {budget:g}"] = float((seen.alone <= budget).mean())
    row["AUROC"] = auroc(seen.scores, clean.scores)
    row["alone AUROC"] = auroc(seen.alone_scores, clean.alone_scores)
    row["ensemble right"] = float((seen.labels == fooled.labels.numpy()).mean())
    return row


def _alarms(pipeline: Pipeline, production: nn.Module, images: Tensor) -> dict[str, float]:
    seen = examine(pipeline, images, answers(production, images))
    row: dict[str, float] = {"images": len(images)}
    for budget in BUDGETS:
        hits = int((seen.p_values <= budget).sum())
        low, high = interval(hits, len(images))
        row |= {f"{budget:g}": hits / len(images), f"{budget:g} low": low, f"{budget:g} high": high}
        row[f"alone {budget:g}"] = float((seen.alone <= budget).mean())
    return row


def _labels(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.as_tensor(model(images).argmax(1))
