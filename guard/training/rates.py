"""The learning rate over a training, as a share of its peak."""

import math
from typing import Literal

from guard.errors import InputError

Schedule = Literal["cyclic", "onecycle", "cosine", "steps", "constant"]


def share(schedule: str, progress: float, *, top: float = 0.3) -> float:
    """Share of the peak rate when `progress` (0 to 1) is done; `top`: where the peak lies.

    cyclic: up in a line, down in a line to zero. onecycle: the same along cosines, from a 25th
    (Smith & Topin 2018). cosine: from the peak down. steps: a tenth from 75%, a hundredth from
    90%. Raises InputError for an unknown name.
    """
    if schedule == "cyclic":
        return progress / top if progress < top else max(0.0, (1 - progress) / (1 - top))
    if schedule == "onecycle":
        if progress < top:
            return 0.04 + 0.96 * _bend(progress / top)
        return 1 - _bend((progress - top) / (1 - top))
    if schedule == "cosine":
        return 1 - _bend(progress)
    if schedule == "steps":
        return 1.0 if progress < 0.75 else 0.1 if progress < 0.9 else 0.01
    if schedule == "constant":
        return 1.0
    raise InputError(
        f"no schedule {schedule!r}; there are cyclic, onecycle, cosine, steps, constant"
    )


def _bend(part: float) -> float:
    """0 to 1 along half a cosine."""
    return (1 - math.cos(math.pi * min(max(part, 0.0), 1.0))) / 2
