"""The learned part: evidence in, one score out, small enough to be retrained in seconds.

Two heads, because the upstream's answer is not always there: `alone` sees the evidence, `upstream`
sees it together with the odds against the upstream's label. Fusing many weak detectors by a
learned one is common (Meng & Chen 2017, Lee et al. 2018).

Known limit: a detector can be attacked like any other net (Carlini & Wagner 2017); what it adds
is cost, and it only ever learns the attacks it was shown.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from guard.defenses import Defense, doubt
from guard.defenses.evidence import defense_from_spec
from guard.defenses.upstream import upstream_odds

FINAL = "detector"


class Head(nn.Module):
    """Standardise, one hidden layer, one number. Higher is more suspicious."""

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.first = nn.Linear(features, hidden)
        self.last = nn.Linear(hidden, 1)

    @torch.no_grad()
    def standardize(self, features: Tensor) -> None:
        """Take mean and standard deviation from the training features (N, F)."""
        self.mean.copy_(features.mean(0))
        self.scale.copy_(features.std(0).clamp_min(1e-3))

    def forward(self, features: Tensor) -> Tensor:
        """(N, F) to (N,); NaN where a number on the way is not finite."""
        hidden = self.first((features - self.mean) / self.scale)
        score: Tensor = self.last(torch.relu(hidden))[:, 0]
        return score + doubt(hidden)


class Detector(nn.Module):
    """Evidence (N, E), probabilities (N, K) and the upstream's (N, K) to scores.

    `defenses` are those of the graph, in its order; their columns are the evidence.
    """

    def __init__(self, defenses: Sequence[Defense], *, hidden: int = 32) -> None:
        super().__init__()
        self.defenses = list(defenses)
        self.hidden = hidden
        self.columns = tuple(column for d in defenses for column in d.columns)
        self.alone = Head(len(self.columns), hidden)
        self.upstream = Head(len(self.columns) + 1, hidden)

    def score_names(self, upstream: bool) -> tuple[str, ...]:
        """Names of the score columns (D); the detector's own is the last."""
        names = tuple(dict.fromkeys(defense.name for defense in self.defenses))
        return (*names, "upstream", FINAL) if upstream else (*names, FINAL)

    def features(self, evidence: Tensor, probabilities: Tensor, upstream: Tensor) -> Tensor:
        """What the upstream head sees, (N, E + 1); the other head sees the first E columns."""
        return torch.cat([evidence, upstream_odds(probabilities, upstream)[:, None]], dim=-1)

    def standardize(self, features: Tensor) -> None:
        """Set both heads' statistics from the training features (N, E + 1)."""
        self.alone.standardize(features[:, :-1])
        self.upstream.standardize(features)

    def forward(
        self, evidence: Tensor, probabilities: Tensor, upstream: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scores without the upstream's answer (N, D0) and with it (N, D1), named as above.

        An image with a number that is not finite in what a score is made of gets NaN.
        """
        alone, both = self.scores(self.features(evidence, probabilities, upstream))
        trust = doubt(evidence, probabilities)[:, None]
        return alone + trust, both + trust + doubt(upstream)[:, None]

    def scores(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The same from finite features (N, E + 1), as `guard.rows` keeps them."""
        evidence = features[:, :-1]
        single = self.defense_scores(evidence)
        alone = torch.cat([single, self.alone(evidence)[:, None]], dim=-1)
        both = torch.cat([single, features[:, -1:], self.upstream(features)[:, None]], dim=-1)
        return alone, both

    def defense_scores(self, evidence: Tensor) -> Tensor:
        """One column per defence, (N, D0 - 1): the largest score where a name occurs twice."""
        scores: dict[str, Tensor] = {}
        start = 0
        for defense in self.defenses:
            stop = start + len(defense.columns)
            score = defense.score(evidence[:, start:stop])
            known = scores.get(defense.name)
            scores[defense.name] = score if known is None else torch.maximum(known, score)
            start = stop
        return torch.stack(list(scores.values()), dim=-1)

    def spec(self) -> dict[str, Any]:
        """Its part of a pack's manifest, as JSON."""
        names = {"alone": self.score_names(False), "upstream": self.score_names(True)}
        return {
            "detector": {"hidden": self.hidden},
            "scores": {key: list(value) for key, value in names.items()},
        }

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> "Detector":
        """The detector of a manifest, which holds both specs; random weights, in eval mode."""
        defenses = [defense_from_spec(entry) for entry in spec["evidence"]["defenses"]]
        return cls(defenses, hidden=spec["detector"]["hidden"]).eval()
