"""The table: what an attacker who controls a share of the reviewed pool gets out of it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from guard.defenses.detector import Detector
from guard.rows import Rows
from tests.poisoning.material import FAMILIES
from tests.poisoning.pool import halves, pool
from tests.poisoning.rounds import ATTACKS, Tables, careless, play, rates

SHARES = (0.01, 0.05, 0.10, 0.25)
ATTACKS_ONCE = ("label flips", "clean-label near-duplicates", "one client floods")
ACCUMULATIVE, ROUNDS = "accumulative, 4 rounds of label flips", 4
BOUND = 0.01  # a point: what may be lost at a share of at most `PROMISED`
PROMISED = 0.10


@dataclass(frozen=True)
class Trial:
    """One attacker, one share, one seed; shares flagged at 5%, in points where it says so."""

    attack: str
    share: float
    seed: int
    family: str
    hostile: int  # the attacker's rows
    accepted: int  # those of them that were learned from
    promoted: int  # rounds
    loss: float  # of TPR on the hold-out, all its attacks together; what is served afterwards
    worst: float  # the same, of the attack that lost most
    learned: float  # TPR on the family that honest callers were attacked with
    before: float
    unguarded: float  # loss with no guard and no gate: what the attack is worth


def trials(
    parent: Detector, tables: Tables, material: Rows, seeds: int, only: str | None = None
) -> Iterator[Trial]:
    """All of them; the family changes with the seed."""
    wanted = [("nobody", 0.0)] + [(a, s) for a in (*ATTACKS_ONCE, ACCUMULATIVE) for s in SHARES]
    for seed in range(seeds):
        for attack, share in wanted:
            if only is None or only in attack:
                yield _trial(parent, tables, material, attack, share, seed)


def _trial(
    parent: Detector, tables: Tables, material: Rows, attack: str, share: float, seed: int
) -> Trial:
    family = FAMILIES[seed % len(FAMILIES)]
    sent, measured = halves(material, seed)
    long = attack == ACCUMULATIVE
    name, rounds = ("label flips", ROUNDS) if long else (attack, 1)
    served, naive, learn = parent, parent, tables["learn"]
    hostile, accepted, promoted = 0, 0, 0
    for number in range(rounds):
        log = pool(sent, family, name, share, 100 * seed + number)
        done = play(served, tables | {"learn": learn}, log, seed=seed)
        naive = careless(naive, tables["learn"], log, seed=seed)
        served, learn = done.detector, done.learn
        hostile, accepted = hostile + int(log.hostile.sum()), accepted + done.hostile
        promoted += done.promoted
    before, after = (rates(one, tables, tables["holdout"]) for one in (parent, served))
    loose = rates(naive, tables, tables["holdout"])
    fresh = [rates(one, tables, measured)[family] for one in (parent, served)]
    attacks = [kind for kind in before if kind in _suspicious(tables["holdout"])]
    return Trial(
        attack, share, seed, family, hostile, accepted, promoted,
        loss=before[ATTACKS] - after[ATTACKS],
        worst=max(before[kind] - after[kind] for kind in attacks),
        learned=fresh[1], before=fresh[0], unguarded=before[ATTACKS] - loose[ATTACKS],
    )  # fmt: skip


def _suspicious(rows: Rows) -> set[str]:
    return {rows.kinds[number] for number in np.unique(rows.kind[rows.suspicious])}


def markdown(found: Sequence[Trial]) -> str:
    """One row for every attacker and share."""
    head = (
        "| attacker | share of the pool | his rows learned | promoted | loss, mean | loss, worst "
        "seed | worst attack, worst seed | new family, before → after | loss without guards, mean "
        "/ worst |\n|---|---|---|---|---|---|---|---|---|\n"
    )
    keys = dict.fromkeys((one.attack, one.share) for one in found)  # in the order they came
    return head + "".join(_line([t for t in found if (t.attack, t.share) == key]) for key in keys)


def _line(some: Sequence[Trial]) -> str:
    def points(value: Callable[[Trial], float], how: Callable[[list[float]], Any]) -> str:
        return f"{100 * how([value(one) for one in some]):.1f}"

    one, rounds = some[0], ROUNDS if some[0].attack == ACCUMULATIVE else 1
    sent, taken = sum(t.hostile for t in some), sum(t.accepted for t in some)
    return (
        f"| {one.attack} | {100 * one.share:g}% | {taken} of {sent} "
        f"| {sum(t.promoted for t in some)} of {len(some) * rounds} "
        f"| {points(lambda t: t.loss, np.mean)} | {points(lambda t: t.loss, max)} "
        f"| {points(lambda t: t.worst, max)} "
        f"| {points(lambda t: t.before, np.mean)} → {points(lambda t: t.learned, np.mean)} "
        f"| {points(lambda t: t.unguarded, np.mean)} / {points(lambda t: t.unguarded, max)} |\n"
    )


def broken(found: Sequence[Trial]) -> list[Trial]:
    """Where more was lost than is promised."""
    return [t for t in found if t.share <= PROMISED and t.loss > BOUND]


def as_json(found: Sequence[Trial]) -> list[dict[str, Any]]:
    """For a file."""
    return [asdict(one) for one in found]
