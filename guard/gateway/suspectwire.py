"""Suspects as `guard.v1` messages and back: pure functions, for the gateway and its client."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from guard.errors import InputError
from guard.gateway import codec, protocol
from guard.gateway.protocol import Message
from guard.suspects.record import Counts, Filter, Label, Review, Row, State, Suspect
from guard.suspects.store import Order
from guard.verdict import Decision, Verdict

LABELS: tuple[Label | None, ...] = (None, "adversarial", "benign", "unsure")  # by wire number
STATES: tuple[State | None, ...] = (None, "open", "agreed", "disputed")
ORDERS: tuple[Order, ...] = ("newest", "oldest", "most_suspicious")
PLAIN = ("model", "pack", "tenant", "client", "predicted", "defense", "sampled")
NUMBERS = ("taken_from", "taken_before", "p_value_at_most")
T = TypeVar("T")

# ── what is asked ────────────────────────────────────────────────────────────────────────────────


def known(names: Sequence[T], number: int, what: str) -> T:
    """The name with this wire number; InputError where there is none."""
    if 0 <= number < len(names):
        return names[number]
    raise InputError(f"{what} {number} is not known here")


def label_of(number: int) -> Label:
    """A label that somebody gives; InputError where it is none."""
    label = known(LABELS, number, "label")
    if label is None:
        raise InputError("label is not set")
    return label


def state_of(number: int) -> State:
    """How far the review is; InputError where it is none."""
    state = known(STATES, number, "state")
    if state is None:
        raise InputError("state is not set")
    return state


def read_filter(message: Message, client: str | None = None) -> Filter:
    """What a SuspectFilter means; `client`: the hash of the name in it, where there is one."""
    facts: dict[str, Any] = {
        name: getattr(message, name) for name in (*PLAIN, *NUMBERS) if message.HasField(name)
    }
    for name in NUMBERS:
        if not math.isfinite(facts.get(name, 0.0)):
            raise InputError(f"{name}: {facts[name]} is no number to compare with")
    if message.ids:
        facts["ids"] = tuple(message.ids)
    if message.HasField("client_name"):
        if message.HasField("client"):
            raise InputError("client and client_name: set one")
        if client is None:
            raise InputError("client_name: needs the gateway's key")
        facts["client"] = client
    if message.HasField("decision"):
        facts["decision"] = known(tuple(Decision), message.decision, "decision")
    if message.HasField("state"):
        facts["state"] = state_of(message.state)
    if message.HasField("label"):
        facts["label"] = label_of(message.label)
    return Filter(**facts)


def write_filter(wanted: Filter, *, client_name: str | None = None) -> Message:
    """A Filter as it travels."""
    names = (*PLAIN, *NUMBERS, "ids", "decision")
    values = {name: getattr(wanted, name) for name in names}
    if wanted.state is not None:
        values["state"] = STATES.index(wanted.state)
    if wanted.label is not None:
        values["label"] = LABELS.index(wanted.label)
    values["client_name"] = client_name
    return protocol.SuspectFilter(**{k: v for k, v in values.items() if v is not None})


# ── what is answered ─────────────────────────────────────────────────────────────────────────────


def write_row(row: Row) -> Message:
    """A Row as it travels."""
    same = (
        "id", "taken", "model", "pack", "tenant", "client", "sampled", "p_value", "predicted",
        "alarms", "seen", "bytes",
    )  # fmt: skip
    return protocol.SuspectRow(
        **{name: getattr(row, name) for name in same},
        decision=int(row.decision),
        state=STATES.index(row.state),
        label=LABELS.index(row.label),
        reviews=[
            protocol.SuspectReview(
                reviewer=one.reviewer,
                label=LABELS.index(one.label),
                at=one.at,
                client=one.source == "client",
            )
            for one in row.reviews
        ],
    )


def write_rows(rows: Iterable[Row]) -> list[Message]:
    """Several."""
    return [write_row(row) for row in rows]


def read_row(message: Message) -> Row:
    """A SuspectRow as a Row."""
    return Row(
        id=message.id,
        taken=message.taken,
        model=message.model,
        pack=message.pack,
        tenant=message.tenant,
        client=message.client,
        sampled=message.sampled,
        decision=Decision(message.decision),
        p_value=message.p_value,
        predicted=message.predicted,
        alarms=tuple(message.alarms),
        seen=message.seen,
        bytes=message.bytes,
        state=state_of(message.state),
        label=known(LABELS, message.label, "label"),
        reviews=tuple(
            Review(
                one.reviewer, label_of(one.label), one.at, "client" if one.client else "reviewer"
            )
            for one in message.reviews
        ),
    )


def write_suspect(suspect: Suspect, classes: Sequence[str] = ()) -> Message:
    """A Suspect, without what its row says, as it travels; `classes`: of its pack, if known."""
    message = protocol.Suspect(
        image=codec.pack_tensor(suspect.image),
        verdict=write_verdict(suspect.verdict, classes),
        evidence=codec.pack_tensor(suspect.evidence),
        probabilities=codec.pack_tensor(suspect.probabilities),
        budget=suspect.budget,
        trace=suspect.trace,
    )
    if suspect.upstream is not None:
        message.upstream.CopyFrom(codec.pack_tensor(suspect.upstream))
    return message


def read_suspect(row: Row, message: Message) -> Suspect:
    """A Suspect from its row and message; what only replays need is not on the wire."""

    def floats(name: str) -> Any:
        return np.asarray(codec.unpack_tensor(getattr(message, name), name), np.float32)

    return Suspect(
        id=row.id,
        taken=row.taken,
        model=row.model,
        pack=row.pack,
        tenant=row.tenant,
        client=row.client,
        near=(),
        sampled=row.sampled,
        budget=message.budget,
        verdict=read_verdict(message.verdict),
        image=floats("image"),
        evidence=floats("evidence"),
        probabilities=floats("probabilities"),
        upstream=floats("upstream") if message.HasField("upstream") else None,
        noise_index=-1,
        trace=message.trace,
    )


def write_counts(counts: Counts) -> Message:
    """Counts as they travel."""
    return protocol.CountSuspectsResponse(
        total=counts.total,
        bytes=counts.bytes,
        by_state=dict(counts.by_state),
        by_label=dict(counts.by_label),
    )


def read_counts(message: Message) -> Counts:
    """A CountSuspectsResponse as Counts."""
    by_state, by_label = dict(message.by_state), dict(message.by_label)
    return Counts(message.total, message.bytes, by_state, by_label)


def write_verdict(row: Verdict, classes: Sequence[str]) -> Message:
    """A Verdict as it travels, its label by name too where the classes are known."""
    scores = [
        protocol.Score(name=name, value=value, p_value=row.p_values[name])
        for name, value in row.scores.items()
    ]
    return protocol.Verdict(
        decision=int(row.decision),
        p_value=row.p_value,
        label=row.label,
        class_name=classes[row.label] if 0 <= row.label < len(classes) else "",
        scores=scores,
        substituted=row.substituted,
        reason=row.reason,
    )


def read_verdict(message: Message) -> Verdict:
    """A guard.v1.Verdict as a Verdict."""
    return Verdict(
        decision=Decision(message.decision),
        p_value=message.p_value,
        label=message.label,
        scores={score.name: score.value for score in message.scores},
        p_values={score.name: score.p_value for score in message.scores},
        substituted=message.substituted,
        reason=message.reason,
    )
