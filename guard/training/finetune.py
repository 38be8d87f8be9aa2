"""Goes on training a pack's detector: mostly on what it knew, a little on what was reviewed.

The old rows are replayed (Robins 1995), with what the parent says of them as the answer (learning
without forgetting, Li & Hoiem 2016), the more of a kind the more of it gets lost. Within each class
the new rows carry at most `share` of the weight, however many there are; a leash bounds how far the
weights may go.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from guard.defenses.detector import Detector
from guard.errors import ConfigError, InputError, NumericError
from guard.rows import Rows
from guard.training.heads import Batch, Heads, losses
from guard.training.leash import Leash
from guard.training.memory import EVERY, Memory
from guard.training.reviewed import has_upstream as seen

if TYPE_CHECKING:  # they need opacus
    from guard.training.private import Private, Spent

Mask = NDArray[np.bool_]

SHARE = 0.1  # of the weight of each class
DRIFT = 0.25  # of the norm of each head's weights
STEPS = 300
BATCH, RATE = 2048, 5e-3
HEAVIEST = 10.0  # one new row weighs no more than that many old ones of its class


@dataclass(frozen=True)
class Report:
    """What a round did to the detector; goes into the manifest."""

    old: int
    new: int
    share: Mapping[str, float]  # of the weight, new rows by class: "benign", "suspicious"
    steps: int
    drift: Mapping[str, float]  # by head: |theta - theta_0| / |theta_0|
    cap: float
    capped: bool  # whether the cap ever held a head back
    privacy: "Spent | None" = None


def finetune(
    parent: Detector,
    old: Rows,
    new: Rows,
    has_upstream: Mask,
    *,
    share: float = SHARE,
    drift: float = DRIFT,
    steps: int = STEPS,
    seed: int = 0,
    private: "Private | None" = None,
) -> tuple[Detector, Report]:
    """A detector that also knows the new rows, in eval mode, and what was done.

    old: what the parent was trained on; new: what `select` left; has_upstream: (R,) of the new.
    share: of each class's weight that the new rows may carry; drift: see `Leash`. With `private`,
    by DP-SGD, which is not repeatable. Raises InputError for rows that do not fit, ConfigError for
    limits out of range, NumericError where training diverges.
    """
    if not 0 < share < 1:
        raise ConfigError(f"share must be between 0 and 1, not {share}", key="share")
    if len(has_upstream) != len(new):
        raise InputError(f"{len(has_upstream)} marks for {len(new)} new rows")
    detector = copy.deepcopy(parent).requires_grad_(True).train()
    if new.columns != old.columns or len(new.columns) != len(parent.columns) + 1:
        raise InputError("these rows do not belong to the detector's graph")
    heads, spent = Heads(detector), None
    rows = _batch(heads, old, new, has_upstream, share)
    leash = Leash({"alone": detector.alone, "upstream": detector.upstream}, drift)
    if private is None:
        _learn(heads, rows, leash, Memory(heads, old), steps=steps, seed=seed)
    else:
        from guard.training.finetune_private import learn_privately

        spent = learn_privately(heads, rows, leash, private, steps=steps)
    if not all(torch.isfinite(p).all() for p in detector.parameters()):
        raise NumericError("the detector's weights are not finite")
    carried = {
        name: float(2 * rows.weight[len(old) :][torch.from_numpy(new.suspicious == mark)].sum())
        for name, mark in (("benign", False), ("suspicious", True))
    }
    report = Report(
        len(old), len(new), carried, steps, leash.drift(), drift, leash.touched, spent
    )  # fmt: skip
    return detector.eval().requires_grad_(False), report


def row_weights(suspicious: Mask, fresh: Mask, share: float) -> NDArray[np.float64]:
    """Weights (R,): half for each class; within one, at most `share` for its new rows."""
    weight = np.zeros(len(suspicious))
    for mark in (False, True):
        before, after = (suspicious == mark) & ~fresh, (suspicious == mark) & fresh
        if not before.any():
            raise InputError("the old rows hold one class alone: nothing to replay")
        heaviest = HEAVIEST * after.sum() / (before.sum() + HEAVIEST * after.sum())
        taken = min(share, heaviest)
        weight[before] = 0.5 * (1 - taken) / before.sum()
        weight[after] = 0.5 * taken / max(after.sum(), 1)
    return weight


def _batch(heads: Heads, old: Rows, new: Rows, has_upstream: Mask, share: float) -> Batch:
    suspicious = np.concatenate([old.suspicious, new.suspicious])
    fresh = np.arange(len(suspicious)) >= len(old)
    with torch.no_grad():
        said = torch.sigmoid(heads(torch.from_numpy(old.features)))
    told = torch.from_numpy(new.suspicious).float()[:, None].expand(-1, 2)
    return Batch(
        torch.from_numpy(np.concatenate([old.features, new.features])),
        torch.cat([said, told]),
        torch.from_numpy(np.concatenate([seen(old), has_upstream])).float(),
        torch.from_numpy(row_weights(suspicious, fresh, share)).float(),
        torch.ones(len(suspicious), 2),
    )


def _learn(
    heads: Heads, rows: Batch, leash: Leash, memory: Memory, *, steps: int, seed: int
) -> None:
    """Rows are drawn by their weight, with replacement."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(heads.parameters(), RATE, weight_decay=0)
    count, old = min(BATCH, len(rows.weight)), len(memory.kind)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - step / steps)
        if step and step % EVERY == 0:
            rows.boost[:old] = memory.weights(heads)
        drawn = rows[torch.multinomial(rows.weight, count, replacement=True, generator=generator)]
        loss = losses(heads(drawn.features), drawn).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        leash.pull()
