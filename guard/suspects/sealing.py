"""Suspects into sealed records, and whether a record is what the index says."""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from guard.errors import StoreError
from guard.suspects import crypt, packing
from guard.suspects.crypt import KeyRing
from guard.suspects.index import Sealed
from guard.suspects.record import Row, Suspect


class Draft(NamedTuple):
    """A record about to be kept."""

    record: Sealed
    content: bytes


def sealed(ring: KeyRing, suspects: Sequence[Suspect], new: set[str]) -> dict[str, Draft]:
    """Those that are new, sealed, by id."""
    drafts: dict[str, Draft] = {}
    for one in suspects:
        if one.id in new and one.id not in drafts:
            content, key = crypt.seal(packing.pack(one), suspect_id=one.id, tenant=one.tenant)
            kek, wrapped = ring.wrap(key, suspect_id=one.id, tenant=one.tenant)
            name = f"{one.id}-{secrets.token_hex(8)}"
            drafts[one.id] = Draft(Sealed(name, len(content), kek, wrapped), content)
    return drafts


def agreeing(suspect: Suspect, row: Row) -> Suspect:
    """The suspect, once the index agrees with what was sealed."""
    verdict = suspect.verdict
    for name, kept, known in (
        ("time", suspect.taken, row.taken),
        ("model", suspect.model, row.model),
        ("pack", suspect.pack, row.pack),
        ("client", suspect.client, row.client),
        ("decision", verdict.decision, row.decision),
        ("class", verdict.label, row.predicted),
        ("p-value", verdict.p_value, row.p_value),
        ("alarms", suspect.alarms, row.alarms),
    ):
        if kept != known and not (kept != kept and known != known):  # NaN is NaN
            raise StoreError(f"suspect {row.id}: the index has another {name} than was sealed")
    return replace(suspect, sampled=row.sampled)  # a later one may have been drawn
