"""A model that is only called: what a black-box attack may ask, what it costs, what silence means.

The model may be a torch module, a closure over a live gateway (`guard.attacks.live`) or anything
else from points (Q, C, H, W) in [0, 1] to labels (Q,) int64 or scores (Q, K). No answer (the
gateway blocked the picture, the budget is spent) is the label NO_ANSWER or a row of NaN, and means
*not fooled*: a picture that nobody answers has deceived nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from guard.attacks.goal import Goal
from guard.errors import InputError

NO_ANSWER = -1
BATCH = 512  # points asked about at once

Model = Callable[[Tensor], Tensor]


@dataclass
class Tally:
    """What attacks cost: int64 (N,), the questions asked about each image, call after call."""

    queries: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    def add(self, queries: Tensor) -> None:
        """Append one batch's counts (N,)."""
        self.queries = torch.cat([self.queries, queries.cpu()])


def labels_of(answers: Tensor) -> Tensor:
    """Labels (Q,) from labels or from scores (Q, K); NO_ANSWER for rows that are not finite."""
    if answers.ndim == 1:
        return answers.long()
    return answers.argmax(1).masked_fill(~answers.isfinite().all(1), NO_ANSWER)


class Oracle:
    """Questions about N images, counted for each of them and never more than `limit` for one.

    levels: a live model sees pixels rounded to multiples of 1/levels (255 for picture files), so
    the points are rounded before they are asked about; None leaves them as they are.
    """

    def __init__(self, model: Model, goal: Goal, *, limit: int, levels: int | None = None) -> None:
        self._model, self._goal, self._limit, self._levels = model, goal, limit, levels
        self.spent = torch.zeros_like(goal.labels)

    def left(self, rows: Tensor) -> Tensor:
        """How many questions are left for the images `rows` (Q,)."""
        return self._limit - self.spent[rows]

    def seen(self, points: Tensor) -> Tensor:
        """The points as the model sees them."""
        if self._levels is None:
            return points
        return (points * self._levels).round() / self._levels

    def fooled(self, points: Tensor, rows: Tensor) -> Tensor:
        """(Q,) bool: whether each point (Q, C, H, W) fools as a change of the image in `rows`."""
        labels = torch.full_like(rows, NO_ANSWER)
        for at in torch.split(self._admit(rows), BATCH):
            labels[at] = labels_of(self._answers(points[at]))
        if self._goal.targets is not None:
            return labels == self._goal.targets[rows]
        return (labels != self._goal.labels[rows]) & (labels != NO_ANSWER)

    def rise(self, points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """What the goal raises, (Q,), -inf without an answer, and whether each point fools."""
        rise = torch.full(rows.shape, -torch.inf, device=rows.device)
        fooled = torch.zeros_like(rows, dtype=torch.bool)
        for at in torch.split(self._admit(rows), BATCH):
            scores = self._answers(points[at]).float()
            if scores.ndim != 2:
                raise InputError("this attack needs scores, and the model answers with labels")
            answered = scores.isfinite().all(1)
            at, scores = at[answered], scores[answered]
            if len(at):
                goal = self._goal[rows[at]]
                rise[at], fooled[at] = goal.rise(scores), goal.reached(scores)
        return rise, fooled

    def _answers(self, points: Tensor) -> Tensor:
        with torch.no_grad():
            return self._model(self.seen(points))

    def _admit(self, rows: Tensor) -> Tensor:
        """Which questions (by index) the images' limits allow; they are counted here."""
        order = rows.argsort(stable=True)
        ranked = rows[order]
        place = torch.arange(len(rows), device=rows.device) - torch.searchsorted(ranked, ranked)
        admitted = order[place < self.left(ranked)].sort().values
        self.spent += torch.bincount(rows[admitted], minlength=len(self.spent))
        return admitted
