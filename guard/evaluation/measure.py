"""Everything a model card reports, measured on the served pipeline and its torch twins."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from guard.data import ImageSet
from guard.evaluation.adaptive import adaptive
from guard.evaluation.detection import Fooled, detection, false_alarms, strike
from guard.evaluation.robustness import Averaged, accuracy, robustness
from guard.pipeline import Pipeline

Log = Callable[[str], None]


@dataclass(frozen=True)
class Exam:
    """Test pictures in a random order, and what fools the production model among the first."""

    images: Tensor  # (N, C, H, W), unseen by everything
    labels: Tensor  # (N,)
    examined: int  # that many are attacked
    struck: Mapping[str, Fooled]

    @classmethod
    def set(
        cls,
        referee: nn.Module,
        test: ImageSet,
        examined: int,
        *,
        seed: int = 0,
        log: Log = lambda _line: None,
    ) -> "Exam":
        """Attack the production model `referee` on the test pictures."""
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(test)))
        images, labels = torch.from_numpy(test.pixels())[order], torch.from_numpy(test.labels)
        labels, examined = labels[order], min(examined, len(test))
        struck = strike(referee, images[:examined], labels[:examined], seed=seed, log=log)
        return cls(images, labels, examined, struck)


def measure(
    pipeline: Pipeline,
    classifiers: Mapping[str, nn.Module],
    exam: Exam,
    *,
    log: Log = lambda _line: None,
    seed: int = 0,
) -> dict[str, Any]:
    """Accuracy, robustness, detection, false alarms and the adaptive attack, as JSON.

    classifiers: the members by name, and "referee", the production model under attack.
    """
    images, labels = exam.images, exam.labels
    some = slice(exam.examined)
    few = slice(max(exam.examined // 10, 20))  # the adaptive attack is dear
    members = {m.name: classifiers[m.name] for m in pipeline.pack.members}
    robust = [classifiers[m.name] for m in pipeline.pack.members if m.role == "robust"]
    referee = classifiers["referee"]
    models = {**members, "ensemble": Averaged(robust)}
    return {
        "examined": exam.examined,
        "test_images": len(images),
        "production_clean": float(accuracy(referee, images, labels).float().mean()),
        "clean": {
            name: float(accuracy(model, images, labels).float().mean())
            for name, model in models.items()
        },
        "robustness": robustness(models, images[some], labels[some], seed=seed, log=log),
        "detection": detection(pipeline, referee, images[some], exam.struck, log=log),
        "false_alarms": false_alarms(pipeline, referee, images, seed=seed),
        "adaptive": adaptive(pipeline, referee, images[few], labels[few], seed=seed, log=log),
    }
