"""Callers whose pictures are not like anybody's: what copies a model, or tries what gets through.

Who copies a classifier with pictures of something else (Orekondy et al.: "Knockoff Nets", 2019), or
with noise, and who sends one attack after another, sends what the detector finds strange, far more
often than a clean picture is. In all traffic it drowns; in one caller's it does not. So the test of
`drift.py` on p-values runs for each caller alone.

Known limit: copying with pictures of the task itself looks like honest use, and is: only a budget
for each caller ends it. A caller with a camera of their own may look strange for ever. Who has many
accounts is many callers.
"""

from collections import Counter, OrderedDict

import numpy as np
from numpy.typing import NDArray

from guard.calibration import Calibration
from guard.metrics import Strange
from guard.traffic.drift import Drift, band

Floats = NDArray[np.float32]


class Callers:
    """At most so many callers, those who asked last. One thread at a time.

    risk: probability that any of them is ever found strange although all is clean.
    """

    def __init__(
        self, calibration: Calibration, *, most: int, risk: float, tolerance: float
    ) -> None:
        self._most = most
        self._first = Drift(band(calibration.scores[:, -1:], tolerance=tolerance), risk=risk / most)
        self._known: OrderedDict[str, Drift] = OrderedDict()
        self._kind: dict[str, Strange] = {}

    def see(self, who: str, p_values: Floats) -> bool:
        """Take note of p-values (N,) of one caller; True when that made them strange."""
        drift = self._known.get(who)
        if drift is None:
            drift = self._known[who] = self._first.fresh()
            if len(self._known) > self._most:
                del self._kind[self._known.popitem(last=False)[0]]
        self._known.move_to_end(who)
        drift.see(p_values[:, None])
        before, self._kind[who] = self._kind.get(who), strangeness(drift)
        return before != "strange" and self._kind[who] == "strange"

    def counts(self) -> Counter[Strange]:
        """How many callers there are of each kind."""
        return Counter(self._kind.values())


def strangeness(drift: Drift) -> Strange:
    """By how much more often one caller's pictures are suspicious: only more is strange."""
    if drift.evidence < 0.5 or drift.direction == "fewer":
        return "usual"
    return "strange" if drift.evidence >= 1 else "doubtful"
