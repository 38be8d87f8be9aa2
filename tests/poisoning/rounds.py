"""One round of learning, as `guard retrain` does it: choose, learn, temper, calibrate, gate."""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from guard.defenses.detector import Detector
from guard.evaluation.gate import Side, compare
from guard.rows import Rows, joined
from guard.training.build import calibrate
from guard.training.finetune import finetune
from guard.training.heads import Heads
from guard.training.retrain import HELD
from guard.training.selection import Limits, select
from guard.training.temper import temper
from tests.poisoning.pool import Pool

BUDGET = 0.05
ATTACKS = "all attacks"
Tables = dict[str, Rows]  # "learn", "calibrate", "holdout"


@dataclass(frozen=True)
class Round:
    """What became of it."""

    detector: Detector  # what is served afterwards: the parent's where the gate refused
    child: Detector  # the candidate's
    learn: Rows
    hostile: int  # the attacker's rows that were learned from
    promoted: bool
    reasons: tuple[str, ...]
    dropped: dict[str, int]


def play(parent: Detector, tables: Tables, pool: Pool, *, seed: int, **how: Any) -> Round:
    """A round with all of its guards, as they are by default; `how` is for `finetune`."""
    new, hostile, learn = pool.reviewed, pool.hostile, tables["learn"]
    held = np.array([int(one, 16) % HELD == 0 for one in new.id], bool)  # for the gate
    chosen = select(new, learn, Limits())
    taken = chosen.kept & ~held
    lesson, asked = new.subset(taken), new.subset(chosen.kept & held)
    taught, _ = finetune(parent, learn, lesson.rows(), lesson.has_upstream, seed=seed, **how)

    def worse(found: Detector) -> set[str]:
        sides = _side(parent, tables), _side(found, tables)
        refused = compare(*sides, holdout=tables["holdout"], heads=("upstream",)).refused
        return {row.head for row in refused}

    child, _ = temper(parent, taught, worse)
    gate = compare(
        _side(parent, tables),
        _side(child, tables),
        holdout=tables["holdout"],
        reviewed=asked.rows(),
        heads=("upstream",),
    )
    count = int((hostile & taken).sum())
    if not gate.passed:
        return Round(parent, child, learn, count, False, gate.reasons, chosen.counts())
    return Round(child, child, joined([learn, lesson.rows()]), count, True, (), chosen.counts())


def careless(parent: Detector, learn: Rows, pool: Pool, *, seed: int, steps: int = 300) -> Detector:
    """What a loop without guards would serve: every label believed, half of all weight."""
    detector = copy.deepcopy(parent).requires_grad_(True).train()
    new = pool.reviewed
    features = torch.from_numpy(np.concatenate([learn.features, new.features]))
    wanted = torch.from_numpy(np.concatenate([learn.suspicious, new.suspicious])).float()
    weight = torch.ones(len(wanted)) / len(learn)
    weight[len(learn) :] = 1 / len(new)
    heads, generator = Heads(detector), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(heads.parameters(), 5e-3)
    for _ in range(steps):
        drawn = torch.multinomial(weight, 2048, replacement=True, generator=generator)
        scores = heads(features[drawn])
        told = wanted[drawn][:, None].expand_as(scores)
        loss = binary_cross_entropy_with_logits(scores, told)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return detector.eval().requires_grad_(False)


def rates(detector: Detector, tables: Tables, rows: Rows) -> dict[str, float]:
    """Share flagged at the budget by kind of row, with the upstream's answer."""
    flagged = _side(detector, tables).p_values(rows)["upstream"] <= BUDGET
    found = {
        kind: float(flagged[rows.kind == number].mean())
        for number, kind in enumerate(rows.kinds)
        if (rows.kind == number).any()
    }
    return found | {ATTACKS: float(flagged[rows.suspicious].mean())}


def _side(detector: Detector, tables: Tables) -> Side:
    return Side(detector, calibrate(detector, tables["calibrate"]))
