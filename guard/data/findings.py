"""What a look at an image set found: one record a finding, readable and machine-readable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Level = Literal["serious", "warning", "note"]
LEVELS: tuple[Level, ...] = ("serious", "warning", "note")


def counted(count: int, noun: str) -> str:
    """`1 picture`, `2 pictures`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


@dataclass(frozen=True)
class Item:
    """One picture of a finding.

    row:     its place in the split, counted from 0, as the set is stored
    score:   how strongly it belongs here, 0 to 1; 1 is certain
    partner: the picture it is compared with: split and row
    """

    split: str
    row: int
    score: float
    why: str
    partner: tuple[str, int] | None = None
    name: str = ""  # its file, where it has one of its own


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    figures: the numbers behind the sentence
    items: the pictures, worst first
    exhibits: pictures made for the eye, uint8 (H, W, C), with a caption each
    """

    check: str
    level: Level
    text: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    items: Sequence[Item] = ()
    exhibits: Sequence[tuple[str, NDArray[np.uint8]]] = ()

    def record(self) -> dict[str, Any]:
        """Everything but the exhibits, as JSON takes it."""
        return {
            "check": self.check,
            "level": self.level,
            "text": self.text,
            "figures": dict(self.figures),
            "items": [asdict(item) for item in self.items],
        }


@dataclass(frozen=True)
class Report:
    """All findings about one image set, the serious ones first."""

    data: str
    pictures: Mapping[str, int]  # by split
    findings: Sequence[Finding]
    seconds: float = 0.0

    @property
    def serious(self) -> bool:
        """Whether the set should not be trained on as it is."""
        return any(finding.level == "serious" for finding in self.findings)

    def ordered(self) -> list[Finding]:
        """Serious, warning, note; within a level in the order of the checks."""
        return sorted(self.findings, key=lambda finding: LEVELS.index(finding.level))

    def record(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "data": self.data,
            "pictures": dict(self.pictures),
            "serious": self.serious,
            "seconds": round(self.seconds, 1),
            "findings": [finding.record() for finding in self.ordered()],
        }

    def lines(self, *, items: int = 5) -> Iterator[str]:
        """For a terminal, a few pictures of each finding."""
        counts = ", ".join(f"{count} {split}" for split, count in self.pictures.items())
        yield f"{self.data}: {counts} pictures, {self.seconds:.0f} s"
        for finding in self.ordered():
            yield f"{finding.level:<8} {finding.check}: {finding.text}"
            if finding.level == "note":
                continue
            for item in finding.items[:items]:
                place = item.name or f"{item.split} {item.row}"
                yield f"           {place}: {item.why} ({item.score:.2f})"
            if len(finding.items) > items:
                yield f"           and {len(finding.items) - items} more"
        serious = sum(finding.level == "serious" for finding in self.findings)
        yield f"{serious} serious" if serious else "nothing serious"
