"""What a suspect's page says about the defences and the answers: plain values for the template.

Letters: K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guard.console import phrases
from guard.suspects.record import Review, Row, Suspect

Floats = NDArray[np.float32]
SHOWN_CLASSES = 4  # columns of the table of answers


@dataclass(frozen=True)
class Defended:
    """What one defence says: a bar of how rare its score is among clean pictures."""

    name: str
    title: str
    score: str
    p_value: str
    words: str
    length: float  # 0 to 100
    alarmed: bool


@dataclass(frozen=True)
class Answered:
    """What one classifier says: a share for each class shown."""

    title: str
    kind: str  # "upstream", "ensemble", "member"
    says: str
    sure: str  # its share
    cells: tuple[tuple[str, float, bool], ...]  # text, length 0 to 100, its answer


@dataclass(frozen=True)
class Answers:
    """The table of answers; `agree`: all name the same class."""

    classes: tuple[str, ...]
    rows: tuple[Answered, ...]
    agree: bool


def defenses(suspect: Suspect) -> list[Defended]:
    """Every score against its calibration: the detector first, then the most suspicious."""
    verdict = suspect.verdict
    found = [
        Defended(
            name=name,
            title=phrases.defense(name),
            score=phrases.number(verdict.scores.get(name, float("nan"))),
            p_value=phrases.chance(p),
            words=phrases.rarer(p),
            length=phrases.rarity(p),
            alarmed=name in suspect.alarms,
        )
        for name, p in verdict.p_values.items()
    ]
    return sorted(found, key=lambda one: (one.name != "detector", -one.length))


def answers(suspect: Suspect, members: Mapping[str, Floats], classes: Sequence[str]) -> Answers:
    """The upstream's, the ensemble's and the members' answers, side by side."""
    given: list[tuple[str, str, Floats]] = []
    if suspect.upstream is not None:
        given.append(("Your classifier", "upstream", suspect.upstream))
    given.append(("Robust ensemble", "ensemble", suspect.probabilities))
    given += [(phrases.plain(name), "member", answer) for name, answer in members.items()]
    shown = _worth_showing([answer for _, _, answer in given])
    rows = [_answered(title, kind, answer, shown, classes) for title, kind, answer in given]
    names = tuple(class_name(classes, index) for index in shown)
    return Answers(names, tuple(rows), len({row.says for row in rows}) == 1)


def class_name(classes: Sequence[str], index: int) -> str:
    """A class by name, where the pack is at hand."""
    return phrases.plain(classes[index]) if 0 <= index < len(classes) else f"Class {index}"


def shown(row: Row, me: str, required: int) -> list[Review]:
    """What this reviewer may know of others: until two have judged apart, only the own label."""
    own = any(one.reviewer == me for one in row.reviews if one.source == "reviewer")
    if required < 2 or own or row.state != "open":
        return list(row.reviews)
    return [one for one in row.reviews if one.source == "client"]


def reviews(row: Row, me: str, required: int) -> dict[str, object]:
    """Who said what, as far as it is shown."""
    seen = shown(row, me, required)
    given = [one for one in row.reviews if one.source == "reviewer"]
    return {
        "own": next((one for one in seen if one.source == "reviewer" and one.reviewer == me), None),
        "others": [one for one in seen if one.source == "reviewer" and one.reviewer != me],
        "hidden": len(row.reviews) - len(seen),
        "client": next((one for one in seen if one.source == "client"), None),
        "given": len(given),
        "required": required,
    }


def _worth_showing(given: Sequence[Floats]) -> list[int]:
    """The classes that somebody answers, then the likeliest others."""
    top = [int(np.nanargmax(a)) for a in given if np.isfinite(a).any()]
    peak = np.nan_to_num(np.stack(given)).max(axis=0)
    rest = [int(k) for k in np.argsort(-peak, kind="stable")]
    return list(dict.fromkeys([*top, *rest]))[:SHOWN_CLASSES]


def _answered(
    title: str, kind: str, answer: Floats, shown: Sequence[int], classes: Sequence[str]
) -> Answered:
    usable = bool(np.isfinite(answer).all())
    best = int(np.argmax(answer)) if usable else -1
    cells = tuple(
        (
            phrases.percent(float(answer[k])),
            round(100 * float(np.nan_to_num(answer[k])), 1),
            k == best,
        )
        for k in shown
    )
    says = class_name(classes, best) if usable else "nothing"
    return Answered(
        title, kind, says, phrases.percent(float(answer[best])) if usable else "", cells
    )
