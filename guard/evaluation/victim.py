"""What `guard attack` attacks: a pack's member, its ensemble, the whole defence, a checkpoint, a
live server. Letters: N images, K classes, C H W.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from guard.attacks.adaptive import Target
from guard.attacks.blackbox import NO_ANSWER, labels_of
from guard.attacks.catalogue import Sight
from guard.attacks.live import Live
from guard.client import Client
from guard.data import ImageSet
from guard.defenses.load import load_detector, load_evidence
from guard.errors import InputError, PackError
from guard.evaluation.robustness import Averaged
from guard.pack import Pack
from guard.pipeline import Pipeline

Model = Callable[[Tensor], Tensor]
BATCH = 256


@dataclass(frozen=True)
class Victim:
    """One thing under attack.

    name, digest:   what it is and what it was made of, for the recipe
    model:          pixels to logits (N, K); of a live server also to labels (N,)
    gives:          what an attack may take from it
    classes, shape: K and (C, H, W), None where nobody says
    through:        the defence to attack through, with the detector's score at the budget
    judge:          what is asked in the end, when that is not the model itself
    """

    name: str
    digest: str
    model: Model
    gives: Sight = "gradients"
    classes: int | None = None
    shape: tuple[int, int, int] | None = None
    through: tuple[Target, float] | None = None
    judge: Model | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def about(self) -> dict[str, Any]:
        """For a recipe."""
        return {"name": self.name, "digest": self.digest, **self.notes}

    def answers(self, images: Tensor) -> Tensor:
        """(N,) int64 labels of images (N, C, H, W), NO_ANSWER where there is none."""
        ask = self.judge or self.model
        with torch.no_grad():
            parts = [labels_of(ask(part)) for part in torch.split(images, BATCH)]
        return torch.cat(parts)

    def check(self, images: ImageSet) -> None:
        """InputError unless these pictures and their classes are the model's."""
        if self.shape is not None and images.shape != self.shape:
            theirs, ours = ("x".join(map(str, shape)) for shape in (images.shape, self.shape))
            raise InputError(f"the pictures are {theirs}, {self.name} takes {ours}")
        if self.classes is not None and self.classes != len(images.classes):
            count = len(images.classes)
            raise InputError(
                f"the data has {count} classes, {self.name} answers with {self.classes}"
            )
        if self.shape is None and isinstance(self.model, nn.Module):
            device = next(self.model.parameters()).device
            try:
                self.answers(torch.zeros((1, *images.shape), device=device))
            except RuntimeError as error:
                shape = "x".join(map(str, images.shape))
                raise InputError(f"{self.name} does not take pictures of {shape}") from error


def pack_victim(
    folder: Path,
    *,
    member: str = "",
    ensemble: bool = False,
    adaptive: bool = False,
    budget: float = 0.01,
    seed: int = 0,
    device: str = "cpu",
) -> Victim:
    """A pack's member (default: its lead), its ensemble, or all of it through the detector.

    budget: the operator's false-alarm budget that an adaptive attack hides under; seed: of the
    noise secret that judges it. PackError when the pack cannot be trusted or has no such member.
    """
    pack = Pack.load(folder)
    graph = load_evidence(pack).to(device)
    common: dict[str, Any] = {
        "digest": pack.digest, "classes": len(pack.classes), "shape": pack.input_shape,
    }  # fmt: skip
    if adaptive:
        return _whole(pack, Target(graph, load_detector(pack).to(device)), budget, seed, common)
    if ensemble:
        network: nn.Module = Averaged([graph.members[name] for name in graph.robust])
        return Victim(f"{pack.name}, ensemble", model=network.eval(), **common)
    name = member or graph.lead
    if name not in graph.members:
        raise PackError(f"{folder}: no member {name!r}; there are {', '.join(graph.members)}")
    return Victim(f"{pack.name}, {name}", model=graph.members[name], **common)


def network_victim(network: nn.Module, weights: Path, *, classes: int | None = None) -> Victim:
    """A classifier loaded from a file of weights, in eval mode."""
    with weights.open("rb") as file:
        digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    return Victim(weights.parent.resolve().name, digest, network.eval(), classes=classes)


def live_victim(
    client: Client, address: str, model: str, *, budget: int | None, **tensors: Any
) -> tuple[Victim, Live]:
    """A model behind a server; the attack's queries are counted, the judge's are not among them."""
    box, judge = Live(client, model, budget=budget, **tensors), Live(client, model, **tensors)
    gives: Sight = "labels" if box.kind == "label" else "logits"
    where = f"{address}, {model}"
    return Victim(where, f"live:{address}/{model}", box, gives, judge=judge.labels), box


def _whole(pack: Pack, target: Target, budget: float, seed: int, common: dict[str, Any]) -> Victim:
    """The ensemble behind its detector: judged by the served pipeline and its own secret noise."""
    secret = hashlib.sha256(f"guard attack {seed}".encode()).digest()
    pipeline = Pipeline.load(pack.folder, max_false_positive_rate=budget, secret=secret)
    threshold = float(np.quantile(pipeline.calibrations["alone"].scores[:, -1], 1 - budget))

    def served(images: Tensor) -> Tensor:
        """The ensemble's label; a flagged picture counts as not answered."""
        verdicts = pipeline.inspect(images.cpu().numpy())
        kept = [v.label if v.p_value > budget else NO_ANSWER for v in verdicts]
        return torch.tensor(kept, dtype=torch.int64, device=images.device)

    return Victim(
        f"{pack.name}, ensemble behind its detector",
        model=served, gives="labels", through=(target, threshold),
        notes={"false_alarm_budget": budget}, **common,
    )  # fmt: skip
