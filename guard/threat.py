"""What an attacker may do to a picture: a norm and a budget."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

from guard.errors import InputError

Norm = Literal["linf", "l2", "patch"]


@dataclass(frozen=True)
class ThreatModel:
    """Changes no larger than `eps` in `norm`, of pixels in [0, 1].

    linf:  no pixel changes by more than eps
    l2:    the Euclidean length of the change is at most eps
    patch: a sticker changes pixels freely on a share eps of the picture's area
    """

    norm: Norm
    eps: float

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm):
            raise InputError(f"norm {self.norm!r} is not one of {', '.join(get_args(Norm))}")
        if not (math.isfinite(self.eps) and self.eps > 0):
            raise InputError(f"eps must be positive, not {self.eps}")

    @classmethod
    def parse(cls, text: str) -> ThreatModel:
        """From "linf 8/255", "l2 0.5" or "patch 0.1"; InputError for anything else."""
        try:
            norm, eps = text.split()
            return cls(norm, float(Fraction(eps)))  # type: ignore[arg-type]
        except (ValueError, ZeroDivisionError) as error:
            raise InputError(f"threat model {text!r} is not like 'linf 8/255'") from error

    def __str__(self) -> str:
        steps = self.eps * 255
        if self.norm == "linf" and abs(steps - round(steps)) < 1e-6:
            return f"linf {round(steps)}/255"
        return f"{self.norm} {self.eps:g}"


LINF_4 = ThreatModel("linf", 4 / 255)
LINF_8 = ThreatModel("linf", 8 / 255)
