"""What changed in a model's traffic: its p-values, its pictures, or both; and what to do about it.

A calibration promises a false-alarm rate on pictures like its own. Two tests run beside each other
(`drift.py`): p-values against the calibration, and a few numbers of every picture against those of
the first `reference` pictures seen. Which of them raises an alarm tells a new camera or the night,
which change the pictures, from an attack, which must not.

Known limit: who sends attacks on pictures that are darker or blurred as well looks like the night;
both findings say that suspects are to be looked at before anything is calibrated on them.
Letters: N images, T numbers of a picture.
"""

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from guard.calibration import Calibration
from guard.metrics import Finding
from guard.traffic.drift import Drift, band
from guard.traffic.pictures import NUMBERS, numbers

Floats = NDArray[np.float32]
ADVICE: dict[Finding, str] = {
    "learning": "the first pictures are being learned; p-values are as calibrated",
    "steady": "pictures are as before, p-values as calibrated",
    "harmless": "pictures have changed, p-values are as calibrated so far: nothing to do",
    "recalibrate": "pictures have changed, and p-values with them: look at a few suspects, then"
    " recalibrate on traffic (`guard calibrate --from-suspects`)",
    "suspicious": "more small p-values on pictures that look as before: an attack, or another"
    " classifier behind the gateway; look at the suspects, and do not calibrate on this traffic",
    "quiet": "fewer small p-values than calibrated: recalibrate, or attacks pass more easily",
}
ALARMS: tuple[Finding, ...] = ("recalibrate", "suspicious", "quiet")
LEVELS = (0.05, 0.2, 0.5, 0.8, 0.95)  # of the pictures' numbers
LOOSE = 4.0  # times the tolerance: what is in the pictures changes all day
# Whatever the pictures do: no night makes half of them look attacked. SMALL: a small p-value.
FLOOD, SMALL, LATELY = 0.5, 0.05, 128
REPEATS = 4096  # pictures that are remembered, to count the same one once


class TrafficShift:
    """Both tests for one model. Its memory does not grow; one thread at a time.

    risk: probability of an alarm that nothing changed for, however long it lasts, of each test.
    tolerance: by how much odds may differ from the calibration's for good. reference: pictures.
    """

    def __init__(
        self, calibration: Calibration, *, risk: float, tolerance: float, reference: int
    ) -> None:
        self._risk, self._tolerance = risk, tolerance
        self.verdicts = Drift(band(calibration.scores[:, -1:], tolerance=tolerance), risk=risk)
        self.pictures: Drift | None = None  # while the first ones are learned
        self._learned: list[Floats] = []
        self._missing = reference
        self._sorted = np.empty((0, 0), np.float32)
        self._small = 0.0  # share of small p-values, lately
        self._known: OrderedDict[int, None] = OrderedDict()

    def see(self, p_values: Floats, images: Floats) -> NDArray[np.bool_]:
        """Take note of the detector's p-values (N,) on images (N, C, H, W); which of them count.

        The same picture again says nothing new, and a p-value that is not finite nothing at all.
        """
        new = np.array([self._new(image) for image in images], np.bool_)
        fresh: NDArray[np.bool_] = np.isfinite(p_values) & new
        if fresh.any():
            self.note(p_values[fresh], numbers(images[fresh]))
        return fresh

    def note(self, p_values: Floats, found: Floats) -> None:
        """The same of pictures that are known by their numbers (N, T) alone."""
        self.verdicts.see(p_values[:, None])
        fade = (1 - 1 / LATELY) ** len(p_values)
        self._small = fade * self._small + (1 - fade) * float((p_values <= SMALL).mean())
        if self._missing > 0:
            self._learn(found)
        elif self.pictures is not None:
            self.pictures.see(self._ranks(found))

    @property
    def finding(self) -> Finding:
        """What the two tests say together."""
        moved = self.pictures is not None and self.pictures.evidence >= 1
        if self.verdicts.evidence < 1:
            return "harmless" if moved else "steady" if self.pictures else "learning"
        if moved and self._small <= FLOOD:
            return "recalibrate"
        return "suspicious" if self.verdicts.direction == "more" else "quiet"

    def _new(self, image: Floats) -> bool:
        """Whether it is none of the last pictures."""
        code = hash(image.tobytes())  # keyed anew in every process
        again = code in self._known
        self._known[code] = None
        self._known.move_to_end(code)
        if len(self._known) > REPEATS:
            self._known.popitem(last=False)
        return not again

    def _learn(self, found: Floats) -> None:
        self._learned.append(found)
        self._missing -= len(found)
        if self._missing <= 0:
            self._sorted = np.sort(np.concatenate(self._learned), axis=0)
            self._learned = []
            edges = band(self._sorted, tolerance=LOOSE * self._tolerance, levels=LEVELS)
            edges.low[:, NUMBERS.index("blocks")] = (
                0  # noise hides blocks: no sign of a re-encoding
            )
            self.pictures = Drift(edges, risk=self._risk)

    def _ranks(self, found: Floats) -> Floats:
        """p-values (N, T): the share of the first pictures that have as large a number."""
        count = len(self._sorted)
        out = np.empty(found.shape, np.float32)
        for column in range(found.shape[1]):
            below = np.searchsorted(self._sorted[:, column], found[:, column], side="left")
            out[:, column] = (1 + count - below) / (count + 1)
        return out
