"""A suspect: an image worth a second look, with all that is needed to judge it again.

Its *row* is what an index may hold in the clear: no picture, no client's name, nothing from which
either could be made. Everything else is sealed. Letters: K classes, E evidence columns, C H W.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from guard.verdict import Decision, Place, Verdict

Floats = NDArray[np.float32]
Label = Literal["adversarial", "benign", "unsure"]
State = Literal["open", "agreed", "disputed"]
Source = Literal["reviewer", "client"]


@dataclass(frozen=True)
class Suspect:
    """One image as the gateway saw it, and what it said of it.

    `id` is a keyed hash of client, tenant, model, pack and pixels: the same picture sent again by
    the same client is the same suspect, and nobody without the key can tell which picture it is.
    """

    id: str
    taken: float  # seconds since the epoch
    model: str
    pack: str  # digest
    tenant: str  # that a grant names (`Identity.scope`), "" without: never a client's own name
    client: str  # keyed hash of who sent it; never a name
    near: tuple[int, ...]  # keyed codes: pictures that look alike share some
    sampled: bool  # drawn at random before the decision, whatever that was
    budget: float  # the false-alarm budget at the time: a defence alarmed where p <= budget
    verdict: Verdict
    image: Floats = field(repr=False)  # (C, H, W) in [0, 1], as the defence saw it, bit for bit
    evidence: Floats = field(repr=False)  # (E,)
    probabilities: Floats = field(repr=False)  # (K,), the robust ensemble's
    upstream: Floats | None = field(repr=False)  # (K,), where there is one
    noise_index: int = field(repr=False)
    trace: str = ""
    # A replay is bit for bit on the same engine, in the same place of runs of the same size.
    engine: str = ""  # provider and versions
    place: Place = (0, 1)  # in the run of the defence: index, size
    judged: Place = (0, 1)  # in that of the detector

    @property
    def alarms(self) -> tuple[str, ...]:
        """The defences that would flag it at the budget, the detector among them."""
        return tuple(n for n, p in self.verdict.p_values.items() if p <= self.budget)


@dataclass(frozen=True)
class Review:
    """What one person, or the client who sent it, says of a suspect."""

    reviewer: str
    label: Label
    at: float  # seconds since the epoch
    source: Source = "reviewer"  # a client's word is shown, and never counts as a reviewer's


@dataclass(frozen=True)
class Row:
    """What the index knows of a suspect."""

    id: str
    taken: float
    model: str
    pack: str
    tenant: str
    client: str
    sampled: bool
    decision: Decision
    p_value: float
    predicted: int  # the answering classifier's class
    alarms: tuple[str, ...]
    seen: int  # times that it was sent
    bytes: int  # sealed
    state: State
    label: Label | None  # what the reviewers agreed on
    reviews: tuple[Review, ...]  # the latest of each, oldest first


@dataclass(frozen=True)
class Filter:
    """Which suspects are meant; what is left out (None, empty) does not matter."""

    ids: Sequence[str] | None = None
    model: str | None = None
    pack: str | None = None
    tenant: str | None = None
    client: str | None = None
    predicted: int | None = None
    decision: Decision | None = None
    defense: str | None = None  # that alarmed
    sampled: bool | None = None
    state: State | None = None
    label: Label | None = None
    taken_from: float | None = None
    taken_before: float | None = None
    p_value_at_most: float | None = None


@dataclass(frozen=True)
class Page:
    """Some rows, and where to go on: None at the end."""

    rows: tuple[Row, ...]
    after: str | None


@dataclass(frozen=True)
class Counts:
    """How many suspects there are, of those that a filter means."""

    total: int
    bytes: int
    by_state: Mapping[State, int]
    by_label: Mapping[Label, int]
