"""What waits to be learned, for who asks every night whether it is worth a round."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from guard.errors import ConfigError
from guard.pack import Pack
from guard.training.gather import mark

COUNTED = ("reviewed", "adversarial", "benign")


@dataclass(frozen=True)
class Condition:
    """Such as "reviewed>=200,benign>=50": all of it has to hold of what is new."""

    fewest: Mapping[str, int]

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Raises ConfigError."""
        found = {}
        for part in text.split(","):
            match = re.fullmatch(r"\s*(\w+)\s*>=\s*(\d{1,9})\s*", part)
            if match is None or match[1] not in COUNTED:
                raise ConfigError(
                    f"--when: {part.strip()!r} is not NAME>=NUMBER, with {', '.join(COUNTED)}",
                    key="when",
                )
            found[match[1]] = int(match[2])
        return cls(found)

    def missing(self, counts: Mapping[str, int]) -> str:
        """What is not there yet, in words; "" where all is."""
        short = [
            f"{counts[name]} of {fewest} {name}"
            for name, fewest in self.fewest.items()
            if counts[name] < fewest
        ]
        return ", ".join(short)


def waiting(labels: Iterable[tuple[str, str]], parent: Pack) -> dict[str, int]:
    """How many suspects no round had in its hands; from ids and the labels agreed on."""
    seen = seen_before(parent)
    new = {one: label for one, label in labels if mark(one) not in seen}
    said = list(new.values())
    adversarial, benign = said.count("adversarial"), said.count("benign")
    return {"reviewed": adversarial + benign, "adversarial": adversarial, "benign": benign}


def seen_before(parent: Pack) -> set[str]:
    """Marks of all suspects that a round before this one had in its hands."""
    return set(map(str, parent.manifest.get("retrained", {}).get("seen", ())))
