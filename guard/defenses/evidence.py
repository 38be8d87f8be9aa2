"""The evidence graph: images and noise in, everything the members and defences see out.

One object is exported and served, attacked, calibrated and evaluated; there is no twin to drift.
Each member runs once: the asked ones on the originals and all the views they are asked about,
the others on the originals alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from guard.defenses import Answers, Defense, doubt
from guard.defenses.ensemble import Disagreement
from guard.defenses.noise import NoiseConsistency
from guard.defenses.sentinel import Sentinel
from guard.defenses.squeezing import Squeezing
from guard.networks import blueprint, build, fuse

DEFENSES: dict[str, Callable[..., Defense]] = {
    "squeezing": Squeezing,
    "noise": NoiseConsistency,
    "ensemble": Disagreement,
    "sentinel": Sentinel,
}
INFORMATION = ("name", "role", "architecture", "arguments")


@dataclass(frozen=True)
class Member:
    """One classifier of the ensemble; `network` maps pixels (N, C, H, W) to logits (N, K).

    `architecture` and `arguments` are what `guard.networks.build` needs to make it again.
    """

    name: str
    role: str  # "robust" | "sentinel"
    network: nn.Module
    architecture: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)


class EvidenceGraph(nn.Module):
    """Members and defences as one module.

    `lead` is the robust member that answers views (the first one unless named), `copies` the
    number S of noise copies per image. Raises ValueError when the parts do not fit.
    """

    def __init__(
        self,
        members: Sequence[Member],
        defenses: Sequence[Defense],
        *,
        lead: str | None = None,
        copies: int = 4,
    ) -> None:
        super().__init__()
        self.roles = {member.name: member.role for member in members}
        self.robust = [name for name, role in self.roles.items() if role == "robust"]
        sentinels = [name for name, role in self.roles.items() if role == "sentinel"]
        self.sentinel = sentinels[0] if sentinels else None
        self.lead = lead or next(iter(self.robust), "")
        self.copies = copies
        self.information = {m.name: (m.architecture, blueprint(m.arguments)) for m in members}
        self.members = nn.ModuleDict({member.name: member.network for member in members})
        self.defenses = list(defenses)
        self._parts = nn.ModuleList(d for d in defenses if isinstance(d, nn.Module))
        self._check(len(members), len(sentinels))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the evidence columns, in order (E)."""
        return tuple(column for defense in self.defenses for column in defense.columns)

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) in [0, 1] and standard normal noise (N, S, C, H, W) to evidence.

        Returns evidence (N, E) and the robust ensemble's probabilities (N, K). A number that is
        not finite anywhere on the way makes the rows of its image NaN.
        """
        evidence, probabilities, *_ = self.explain(images, noise)
        return evidence, probabilities

    def explain(
        self, images: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What `forward` returns, and what it comes from, for people to look at.

        Every member's probabilities on the originals (M, N, K), the views (V, N, C, H, W) in the
        order of `looks`, and the asked member's probabilities on them (V, N, K).
        """
        views = [defense.views(images, noise) for defense in self.defenses]
        logits = {name: self._ask(name, images, views) for name in self.members}
        trust = doubt(images, noise, *(x.transpose(0, 1) for x in logits.values()))[:, None]
        probabilities = {name: torch.softmax(x, -1) for name, x in logits.items()}
        robust = torch.stack([probabilities[name][0] for name in self.robust])
        evidence, answers = self._measure(views, probabilities, robust)
        members = torch.stack([each[0] for each in probabilities.values()])
        shown = [view for view in views if view is not None]
        seen = torch.cat(shown) if shown else images[None][:0]
        return evidence + trust, robust.mean(0) + trust, members, seen, answers

    @property
    def looks(self) -> tuple[tuple[str, str], ...]:
        """The V views: their names, and the members that are asked about them."""
        return tuple(
            (name, self._who(defense) or self.lead)
            for defense in self.defenses
            for name in defense.variants(self.copies)
        )

    def cost(self) -> int:
        """Forward passes per image."""
        return len(self.members) + len(self.looks)

    def spec(self) -> dict[str, Any]:
        """Its part of a pack's manifest: everything but the weights, as JSON."""
        members = [
            dict(zip(INFORMATION, (name, self.roles[name], *self.information[name]), strict=True))
            for name in self.members
        ]
        evidence = {
            "columns": list(self.columns),
            "noise_copies": self.copies,
            "lead": self.lead,
            "sentinel": self.sentinel,
            "defenses": [{**d.spec(), "columns": list(d.columns)} for d in self.defenses],
            "passes": self.cost(),
            "views": [{"name": name, "asked": asked} for name, asked in self.looks],
        }
        return {"members": members, "evidence": evidence}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> "EvidenceGraph":
        """The graph of a spec or manifest, with fused networks of random weights, in eval mode."""
        members = [
            Member(
                network=fuse(build(entry["architecture"], **blueprint(entry["arguments"]))),
                **{key: entry[key] for key in INFORMATION},
            )
            for entry in spec["members"]
        ]
        evidence = spec["evidence"]
        defenses = [defense_from_spec(entry) for entry in evidence["defenses"]]
        copies, lead = evidence["noise_copies"], evidence["lead"]
        return cls(members, defenses, lead=lead, copies=copies).eval()

    def _ask(self, name: str, images: Tensor, views: list[Tensor | None]) -> Tensor:
        """Logits of one member on the originals and its views, (1 + V, N, K)."""
        asked = [
            view.flatten(0, 1)
            for view, defense in zip(views, self.defenses, strict=True)
            if view is not None and self._who(defense) == name
        ]
        logits: Tensor = self.members[name](torch.cat([images, *asked]) if asked else images)
        return logits.reshape(-1, images.shape[0], logits.shape[-1])

    def _who(self, defense: Defense) -> str | None:
        return self.sentinel if defense.ask == "sentinel" else self.lead

    def _measure(
        self, views: list[Tensor | None], probabilities: dict[str, Tensor], robust: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Every defence's columns side by side, (N, E), and the answers on all views, (V, N, K)."""
        sentinel = probabilities[self.sentinel][0] if self.sentinel else None
        used = dict.fromkeys(self.members, 1)
        columns, heard = [], []
        for defense, asked in zip(self.defenses, views, strict=True):
            name = self._who(defense) or self.lead
            count = 0 if asked is None else asked.shape[0]
            answers = probabilities[name][used[name] : used[name] + count]
            used[name] += count
            heard += [answers] if count else []
            columns.append(
                defense.measure(Answers(probabilities[name][0], answers, robust, sentinel))
            )
        said = torch.cat(heard) if heard else robust[:0]
        return torch.cat(columns, dim=-1), said

    def _check(self, members: int, sentinels: int) -> None:
        if len(self.roles) != members or set(self.roles.values()) - {"robust", "sentinel"}:
            raise ValueError("members need different names and the role robust or sentinel")
        if self.lead not in self.robust or sentinels > 1:
            raise ValueError("the lead must be a robust member, and at most one is the sentinel")
        asked = {d.ask for d in self.defenses}
        if asked - {"lead", "sentinel"} or ("sentinel" in asked and not sentinels):
            raise ValueError("a defence asks the lead or the sentinel, which must exist")
        if self.copies < 1 and any(d.name == "noise" for d in self.defenses):
            raise ValueError("consistency under noise needs at least one copy")
        if len(set(self.columns)) != len(self.columns):
            raise ValueError(f"evidence columns need different names: {', '.join(self.columns)}")


def defense_from_spec(entry: Mapping[str, Any]) -> Defense:
    """One defence from its entry in a spec; raises KeyError for an unknown name."""
    options = {key: value for key, value in entry.items() if key not in ("name", "columns")}
    return DEFENSES[entry["name"]](**options)


def cost(spec: Mapping[str, Any]) -> int:
    """Forward passes per image of the graph a spec describes."""
    copies = spec["evidence"]["noise_copies"]
    defenses = [defense_from_spec(entry) for entry in spec["evidence"]["defenses"]]
    return len(spec["members"]) + sum(len(defense.variants(copies)) for defense in defenses)


def default_defenses(
    *, squeezing: str = "sentinel", noise: str = "sentinel", sigma: float = 0.06
) -> list[Defense]:
    """The complete defence: which member answers the views, and how strong the noise is."""
    consistency = NoiseConsistency(sigma, ask=noise)
    return [Squeezing(ask=squeezing), consistency, Disagreement(), Sentinel()]
