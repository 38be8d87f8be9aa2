"""Everything a model card reports, measured on the served pipeline and its torch twins."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from guard.data import ImageSet
from guard.evaluation.adaptive import adaptive
from guard.evaluation.detection import detection, false_alarms
from guard.evaluation.robustness import Averaged, accuracy, robustness
from guard.pipeline import Pipeline

Log = Callable[[str], None]


class Extent(Protocol):
    """How many test images are attacked."""

    @property
    def examined(self) -> int:
        """That many."""
        ...


def measure(
    pipeline: Pipeline,
    classifiers: Mapping[str, nn.Module],
    extent: Extent,
    test: ImageSet,
    *,
    log: Log = lambda _line: None,
    seed: int = 0,
) -> dict[str, Any]:
    """Accuracy, robustness, detection, false alarms and the adaptive attack, as JSON.

    classifiers: the members by name, and "referee", the production model under attack.
    """
    images, labels = _tensors(test)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(images)))
    some = order[: extent.examined]
    few = order[: max(extent.examined // 10, 20)]  # the adaptive attack is dear
    members = {m.name: classifiers[m.name] for m in pipeline.pack.members}
    robust = [classifiers[m.name] for m in pipeline.pack.members if m.role == "robust"]
    referee = classifiers["referee"]
    models = {**members, "ensemble": Averaged(robust)}
    return {
        "examined": len(some),
        "test_images": len(images),
        "production_clean": float(accuracy(referee, images, labels).float().mean()),
        "clean": {
            name: float(accuracy(model, images, labels).float().mean())
            for name, model in models.items()
        },
        "robustness": robustness(models, images[some], labels[some], seed=seed, log=log),
        "detection": detection(pipeline, referee, images[some], labels[some], seed=seed, log=log),
        "false_alarms": false_alarms(pipeline, referee, images[order], seed=seed),
        "adaptive": adaptive(pipeline, referee, images[few], labels[few], seed=seed, log=log),
    }


def _tensors(images: ImageSet) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(images.pixels()), torch.from_numpy(images.labels)
