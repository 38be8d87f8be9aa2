"""Reviewed pools: what honest callers sent, and the share of it that an attacker controls.

Of everything that reviewers agreed on, `share` is the attacker's: his pictures, and, where he flips
labels, the reviewers' word too (a client whose feedback is believed, a colluding or fooled person).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guard.rows import Rows, joined
from guard.training.reviewed import Reviewed
from tests.poisoning.material import CLONES, KNOWN

HONEST, CLIENTS, DAYS = 500, 25, 5
PER_IDENTITY = 10  # rows that an attacker with many identities sends from each


@dataclass(frozen=True)
class Pool:
    """Reviewed suspects, and which of them are the attacker's."""

    reviewed: Reviewed
    hostile: NDArray[np.bool_]  # (R,)


def pool(material: Rows, family: str, attack: str, share: float, seed: int) -> Pool:
    """Half attacks of a family that the detector does not know, half benign; and the attacker's.

    material: rows that no hold-out has pictures of; those for the pool alone, see `halves`.
    """
    random = np.random.default_rng(seed)
    honest = joined([_draw(material, (family,), HONEST // 2, random), _benign(material, random)])
    count = round(share / (1 - share) * HONEST)
    hostile, labels, clients = ATTACKS[attack](material, family, count, random)
    rows = joined([honest, hostile]) if count else honest
    said = np.concatenate([honest.suspicious, labels])
    client = [f"c{n}" for n in random.integers(0, CLIENTS, len(honest))]
    return Pool(
        _reviewed(rows, said, np.array([*client, *clients]), random),
        np.arange(len(rows)) >= len(honest),
    )


Sent = tuple[Rows, NDArray[np.bool_], list[str]]  # rows, what reviewers said, clients


def _flips(material: Rows, family: str, count: int, random: np.random.Generator) -> Sent:
    """Half known and new attacks as benign, half clean pictures as attacks; many identities."""
    known = tuple(name for name in material.kinds if name.startswith(KNOWN))
    attacks = _draw(material, (*known, family), (count + 1) // 2, random)
    rows = joined([attacks, _draw(material, ("clean",), count // 2, random)])
    return rows, ~rows.suspicious, _identities(len(rows))


def _clones(material: Rows, family: str, count: int, random: np.random.Generator) -> Sent:
    """Near-duplicates of benign pictures that look suspicious, rightly labelled."""
    rows = _draw(material, (CLONES,), count, random)
    return rows, rows.suspicious, _identities(len(rows))


def _flood(material: Rows, family: str, count: int, random: np.random.Generator) -> Sent:
    """Attacks as benign, all from one client."""
    known = tuple(name for name in material.kinds if name.startswith(KNOWN))
    rows = _draw(material, (*known, family), count, random)
    return rows, ~rows.suspicious, ["flood"] * len(rows)


def _nobody(material: Rows, family: str, count: int, random: np.random.Generator) -> Sent:
    none = material.subset(np.zeros(len(material), bool))
    return none, none.suspicious, []


ATTACKS: Mapping[str, Callable[[Rows, str, int, np.random.Generator], Sent]] = {
    "nobody": _nobody,
    "label flips": _flips,
    "clean-label near-duplicates": _clones,
    "one client floods": _flood,
}


def halves(material: Rows, seed: int) -> tuple[Rows, Rows]:
    """Rows for pools, and rows to measure what was learned."""
    first = np.random.default_rng(seed).random(len(material)) < 0.65
    return material.subset(first), material.subset(~first)


def _benign(material: Rows, random: np.random.Generator) -> Rows:
    kinds = ("noise", "blur", "jpeg", "brightness", "resample")
    corrupted = _draw(material, kinds, HONEST // 8, random)
    return joined([_draw(material, ("clean",), HONEST // 2 - HONEST // 8, random), corrupted])


def _draw(material: Rows, kinds: tuple[str, ...], count: int, random: np.random.Generator) -> Rows:
    wanted = [material.kinds.index(kind) for kind in kinds]
    there = np.flatnonzero(np.isin(material.kind, wanted))
    return material.subset(random.choice(there, count, replace=count > len(there)))


def _identities(count: int) -> list[str]:
    return [f"a{n // PER_IDENTITY}" for n in range(count)]


def _reviewed(
    rows: Rows, said: NDArray[np.bool_], clients: NDArray[np.str_], random: np.random.Generator
) -> Reviewed:
    count = len(rows)
    ids = [bytes(random.bytes(16)).hex() for _ in range(count)]
    return Reviewed(
        columns=rows.columns,
        id=np.array(ids, dtype=str),
        features=rows.features,
        has_upstream=np.ones(count, bool),
        suspicious=said,
        client=clients,
        day=random.integers(20000, 20000 + DAYS, count).astype(np.int32),
        reviewers=np.full(count, 2, np.int16),
        dissent=np.zeros(count, np.int16),
        sampled=~rows.suspicious,
        model=np.full(count, "m"),
        pack=np.full(count, "p"),
        predicted=np.zeros(count, np.int32),
    )
