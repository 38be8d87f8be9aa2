"""Signs of planted triggers (backdoor poison) in a training set.

A classifier trained on the set has learned what the poison teaches. Two searches propose a part of
each class from its penultimate features: spectral signatures (Tran, Li & Madry 2018: the largest
projections on the top singular vector) and activation clustering (Chen et al. 2018: one of two
clusters in ten dimensions). Both always propose something, since every class has its odd corner.
So each proposal is put to two tests. What the suspects have in common, pixel by pixel, is laid over
pictures of other classes: a trigger turns most of them into the suspected class. And it is lifted
off the suspects, against the rest of their class: pictures that were of this class to begin with
(one video track, dark pictures) stay in it, poison falls back to what it shows.

Known limits: a trigger the classifier did not learn, one that sits elsewhere or looks different
in every picture (input-aware, warped), a class of which less than a fifth is its own, and
clean-label poison, whose pictures are of their class.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from guard.training.clusters import directions, spread_within, two_means

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]
Predict = Callable[[Bytes], Ints]  # pictures (N, H, W, C) to classes (N,)
Search = Callable[[Floats], Mask]  # a class's features (N, F) to its suspected part

SURE = 0.2  # turned + freed - 1 from which it is reported; see deploy/docs/training-data.md
FEWEST = 6  # suspects; fewer have no common pattern worth the name
REST = 0.2  # of the class that must be left to compare with: a few wrong labels are no class
FEWEST_REST = 15
HOSTS = 150  # pictures a pattern is laid over or lifted off
COVERED = 0.5  # gain below which a pattern hides what is under it
DIMENSIONS = 10
SAMPLE = 4000  # pictures that a pixel's statistics are taken from


@dataclass(frozen=True)
class Trigger:
    """A trigger, as far as the pictures show it.

    label:    the class it leads to
    suspects: int64 (S,), indices of the pictures that carry it, most typical first
    scores:   float32 (S,), 0 to 1, how far each lies towards the suspects' side
    turned:   share of other classes' pictures that the pattern, laid over, turns into `label`
    freed:    share of the suspects that leave `label` when it is lifted off
    search:   what proposed it
    """

    label: int
    suspects: Ints
    scores: Floats
    turned: float
    freed: float
    search: str

    @property
    def sure(self) -> float:
        """From -1 to 1; above 0 the pattern carries the label rather than the pictures do."""
        return self.turned + self.freed - 1


def spectral(features: Floats) -> Mask:
    """The part of a class (N, F) with the largest outlier scores (Tran et al. 2018)."""
    centred = features - features.mean(0)
    score = np.abs(centred @ directions(centred, 1)[0])
    return two_means(score[:, None], score > np.quantile(score, 0.9))


def clustering(features: Floats) -> Mask:
    """The smaller of two clusters of a class (N, F) (Chen et al. 2018; PCA for their ICA)."""
    centred = features - features.mean(0)
    flat = centred @ directions(centred, DIMENSIONS).T
    line = flat[:, 0]
    far = np.abs(line) > np.quantile(np.abs(line), 0.8)
    starts = (far, line > np.quantile(line, 0.8), line < np.quantile(line, 0.2))
    found = [two_means(flat, start) for start in starts]
    best = min(found, key=lambda mask: spread_within(flat, mask))
    return best if best.sum() * 2 <= len(best) else ~best


SEARCHES: dict[str, Search] = {
    "spectral signatures": spectral,
    "activation clustering": clustering,
}


def find_triggers(
    images: Bytes,
    labels: Ints,
    features: Floats,
    predict: Predict,
    *,
    rng: np.random.Generator,
    sure: float = SURE,
) -> list[Trigger]:
    """Search every class of a training set: images (N, H, W, C), labels (N,), features (N, F).

    predict: the classifier the features are from. At most one trigger a class, surest first.
    """
    found = []
    for label in np.unique(labels):
        own, other = np.flatnonzero(labels == label), np.flatnonzero(labels != label)
        if len(own) < FEWEST + FEWEST_REST or len(other) < FEWEST:
            continue
        others = images[_sample(other, rng)]
        court = _Court(images, int(label), others, predict, rng)
        judged = [court.judge(own[m], own[~m], name) for name, m in _proposals(features[own])]
        likely = [one for one in judged if one.sure >= sure]
        if likely:
            best = max(likely, key=lambda one: one.sure)
            found.append(_ranked(best, features, own))
    return sorted(found, key=lambda one: -one.sure)


def pattern(suspects: Bytes, others: Bytes) -> tuple[Floats, Floats]:
    """What the suspects have in common and others lack, as gain and offset of each pixel (H, W, C).

    Laid on a picture x it gives gain x + offset: a sticker has gain 0, a blend its transparency.
    """
    s, o = suspects.astype(np.float32), others.astype(np.float32)
    gain = np.minimum(1, s.std(0) / np.maximum(o.std(0), 1))
    return gain, s.mean(0) - gain * o.mean(0)


def lay(over: tuple[Floats, Floats], images: Bytes) -> Bytes:
    """Lay a pattern over pictures (N, H, W, C)."""
    gain, offset = over
    covered: Bytes = np.clip(gain * images + offset + 0.5, 0, 255).astype(np.uint8)
    return covered


def lift(off: tuple[Floats, Floats], images: Bytes, instead: Floats) -> Bytes:
    """Undo `lay`; where the pattern hides the picture, show `instead` (H, W, C)."""
    gain, offset = off
    under = (images - offset) / np.maximum(gain, COVERED)
    shown = np.where(gain >= COVERED, under, instead)
    bare: Bytes = np.clip(shown + 0.5, 0, 255).astype(np.uint8)
    return bare


@dataclass(frozen=True)
class _Court:
    """What the proposals of one class are judged by; others: pictures (M, H, W, C) not of it."""

    images: Bytes
    label: int
    others: Bytes
    predict: Predict
    rng: np.random.Generator

    def judge(self, suspects: Ints, rest: Ints, search: str) -> Trigger:
        """Lay the suspects' pattern over other classes, lift it off the suspects.

        Taken against other classes the pattern holds what the class itself looks like, taken
        against the rest of the class it does not; a trigger turns pictures either way.
        """
        mine, theirs = (self.images[_sample(index, self.rng)] for index in (suspects, rest))
        hosts, freed = self.others[:HOSTS], 0.0
        turned = self._share(lay(pattern(mine, self.others), hosts))
        if turned > SURE:
            against_rest = pattern(mine, theirs)
            turned = min(turned, self._share(lay(against_rest, hosts)))
            freed = 1 - self._share(lift(against_rest, mine[:HOSTS], theirs.mean(0)))
        return Trigger(self.label, suspects, np.zeros(0, np.float32), turned, freed, search)

    def _share(self, pictures: Bytes) -> float:
        return float((self.predict(pictures) == self.label).mean())


def _proposals(features: Floats) -> list[tuple[str, Mask]]:
    """The suspected parts of one class; a poison that is the majority is tried as well."""
    masks = [(name, search(features)) for name, search in SEARCHES.items()]
    both = [(name, side) for name, mask in masks for side in (mask, ~mask)]
    rest = max(FEWEST_REST, REST * len(features))
    return [(name, mask) for name, mask in both if FEWEST <= mask.sum() <= len(mask) - rest]


def _ranked(trigger: Trigger, features: Floats, own: Ints) -> Trigger:
    """The suspects in the order of how far they lie towards their own side of the class."""
    ours, theirs = features[trigger.suspects], features[np.setdiff1d(own, trigger.suspects)]
    axis = ours.mean(0) - theirs.mean(0)
    low, high = float(theirs.mean(0) @ axis), float(ours.mean(0) @ axis)
    scores = np.clip((ours @ axis - low) / max(high - low, 1e-9), 0, 1).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    return replace(trigger, suspects=trigger.suspects[order], scores=scores[order])


def _sample(index: Ints, rng: np.random.Generator) -> Ints:
    return rng.permutation(index)[:SAMPLE]
