"""What can be said about an image set before anyone trains on it, and without training anything.

Each check is one function, scans in, findings out. What needs a trained classifier (label noise,
planted triggers) is in `guard.training.inspection`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from guard.data.duplicates import Pairs, alike, same
from guard.data.findings import Finding, Item, Level, counted
from guard.data.jpeg import grid_votes
from guard.data.scan import Scan

Log = Callable[[str], None]

CONSTANT = 1.0  # standard deviation (of 255) below which a picture shows nothing
TINY = 16  # pixels a side
SKEWED = 10.0  # largest class over smallest
JPEG_SHARE = 0.5  # estimated share of pictures from which JPEG is reported; clean sets reach 0.25
LEAKED = 0.01  # share of test pictures with a near duplicate in train from which it is serious
VOTERS = 1000  # pictures that vote on JPEG


def check(scans: Sequence[Scan], *, log: Log = lambda _line: None) -> list[Finding]:
    """All checks on one or two splits; with two, the first is the one that is trained on."""
    findings: list[Finding] = []
    for scan in scans:
        log(f"{scan.split}: {len(scan)} pictures, sizes, classes, compression")
        findings += [*unreadable(scan), *odd(scan), *balance(scan), *compressed(scan)]
        log(f"{scan.split}: duplicates")
        findings += repeated(scan)
    if len(scans) > 1:
        log(f"{scans[0].split} against {scans[1].split}")
        findings += leaked(scans[0], scans[1])
    return findings


def unreadable(scan: Scan) -> Iterator[Finding]:
    """Pictures that cannot be decoded, or whose label has no class."""
    if not scan.broken:
        return
    names = scan.names or [""] * (scan.broken[-1][0] + 1)
    items = [Item(scan.split, row, 1.0, why, name=names[row]) for row, why in scan.broken]
    text = f"{counted(len(items), 'picture')} of {scan.split} cannot be used"
    yield Finding("unreadable", "serious", text, {"count": len(items)}, items)


def odd(scan: Scan) -> Iterator[Finding]:
    """Constant pictures, tiny ones, mixed sizes."""
    spread = _per_picture(scan.pictures.images, lambda block: block.std((1, 2)).max(1))
    flat = np.flatnonzero(spread < CONSTANT)
    if len(flat):
        items = [
            scan.item(k, 1.0, f"constant, spread {spread[k]:.1f} of 255") for k in flat.tolist()
        ]
        level: Level = "serious" if len(flat) > 0.01 * len(scan) else "warning"
        text = f"{counted(len(flat), 'picture')} of {scan.split} of one colour only"
        yield Finding("constant", level, text, {"count": len(flat)}, items)
    small = np.flatnonzero(scan.sizes.min(1) < TINY)
    if len(small):
        items = [scan.item(k, 1.0, "{}x{} pixels".format(*scan.sizes[k])) for k in small.tolist()]
        text = f"{counted(len(small), 'picture')} of {scan.split} below {TINY} pixels"
        yield Finding("size", "warning", text, {"count": len(small)}, items)
    sizes, counts = np.unique(scan.sizes, axis=0, return_counts=True)
    if len(sizes) > 1:
        (h, w), common = sizes[counts.argmax()], counts.max() / len(scan)
        low, high = sizes.min(0), sizes.max(0)
        text = (
            f"{scan.split} has {len(sizes)} sizes from {low[0]}x{low[1]} to {high[0]}x{high[1]}, "
            f"commonest {h}x{w} ({common:.0%}); compared at one size"
        )
        yield Finding("size", "note", text, {"sizes": len(sizes), "commonest": float(common)})


def balance(scan: Scan) -> Iterator[Finding]:
    """How many pictures each class has; classes with none are serious in what is trained on."""
    counts = np.bincount(scan.pictures.labels, minlength=len(scan.pictures.classes))
    names = scan.pictures.classes
    figures = {"counts": dict(zip(names, counts.tolist(), strict=True))}
    empty = [name for name, count in zip(names, counts, strict=True) if not count]
    low, high = int(counts.argmin()), int(counts.argmax())
    ratio = counts[high] / max(counts[low], 1)
    text = (
        f"{scan.split}: {len(names)} classes, {names[low]!r} has {counts[low]} pictures, "
        f"{names[high]!r} {counts[high]}"
    )
    if empty:
        text += f"; none at all: {', '.join(empty[:5])}{' ...' if len(empty) > 5 else ''}"
        yield Finding("balance", "serious", text, figures)
    else:
        yield Finding("balance", "warning" if ratio > SKEWED else "note", text, figures)


def compressed(scan: Scan) -> Iterator[Finding]:
    """Whether the pictures went through JPEG, by their format and by their pixels."""
    stored = scan.formats.get("JPEG", 0) / max(sum(scan.formats.values()), 1)
    step = max(1, len(scan.crops) // VOTERS)
    votes = grid_votes(scan.crops[::step])
    figures = {"stored_as_jpeg": stored, "grid_share": votes.share, "p_value": votes.p_value}
    if votes.share < JPEG_SHARE and stored < JPEG_SHARE:
        return
    text = (
        f"{max(votes.share, stored):.0%} of {scan.split} went through JPEG ({stored:.0%} stored "
        "so): a detector trained or calibrated on them flags untouched pictures"
    )
    yield Finding("jpeg", "warning", text, figures)


def repeated(scan: Scan) -> Iterator[Finding]:
    """Pictures that are in a split more than once; with different labels it is serious."""
    exact = same(scan.digests)
    near = alike(scan.pictures.images)
    near = near.keep(scan.digests[near.first] != scan.digests[near.second])
    labels, groups = scan.pictures.labels, scan.pictures.groups
    if groups is not None:
        near = near.keep(groups[near.first] != groups[near.second])
    for kind, pairs in (("exact", exact), ("near", near)):
        clash = labels[pairs.first] != labels[pairs.second]
        yield from _contradictions(scan, pairs.keep(clash), kind)
        pairs = pairs.keep(~clash)
        if not len(pairs):
            continue
        extra = len(scan) - len(np.unique(pairs.clusters(len(scan))))
        text = (
            f"{counted(extra, 'picture')} of {scan.split}: {kind} copies of others of their class"
        )
        level: Level = "warning" if extra > LEAKED * len(scan) else "note"
        items = _items(scan, scan, pairs, kind)
        yield Finding("duplicates", level, text + _cut(pairs), {kind: extra}, items)


def leaked(train: Scan, test: Scan) -> Iterator[Finding]:
    """What `test` shares with `train`: classes that disagree, pictures, groups."""
    if train.pictures.classes != test.pictures.classes:
        text = f"{train.split} and {test.split} name different classes: labels mean other things"
        yield Finding("classes", "serious", text)
    exact = same(train.digests, test.digests)
    near = _near(train, test).best_per_second()
    near = near.keep(~np.isin(near.second, exact.second))
    for kind, pairs in (("exact", exact), ("near", near)):
        if not len(pairs):
            continue
        share = len(pairs) / len(test)
        clash = int(
            (train.pictures.labels[pairs.first] != test.pictures.labels[pairs.second]).sum()
        )
        text = f"{counted(len(pairs), 'picture')} of {test.split} ({share:.2%}): "
        text += f"{kind} copies of {train.split}"
        text += f", {clash} of them with another label" if clash else ""
        level: Level = "serious" if share > LEAKED else "warning"
        figures = {kind: len(pairs), "share": share, "other_label": clash}
        yield Finding(
            "leakage", level, text + _cut(pairs), figures, _items(train, test, pairs, kind)
        )
    yield from _shared_groups(train, test)


def _near(train: Scan, test: Scan) -> Pairs:
    if train.pictures.shape != test.pictures.shape:
        nothing = np.zeros(0, np.int64)
        return Pairs(nothing, nothing, nothing.astype(np.float32))
    return alike(train.pictures.images, test.pictures.images)


def _shared_groups(train: Scan, test: Scan) -> Iterator[Finding]:
    ours, theirs = train.pictures.groups, test.pictures.groups
    if ours is None or theirs is None:
        if ours is not None:
            text = f"{test.split} names no groups: whether tracks are on both sides cannot be told"
            yield Finding("groups", "note", text)
        return
    both = np.intersect1d(ours, theirs)
    both = both[both >= 0]
    if len(both):
        at = np.flatnonzero(np.isin(theirs, both))
        items = [
            test.item(k, 1.0, f"group {theirs[k]} is also in {train.split}") for k in at.tolist()
        ]
        text = (
            f"{counted(len(both), 'group')} in {train.split} and in {test.split}, "
            f"{counted(len(at), 'picture')} of {test.split}: what is measured there is memory"
        )
        yield Finding("groups", "serious", text, {"groups": both.tolist()}, items)


def _contradictions(scan: Scan, pairs: Pairs, kind: str) -> Iterator[Finding]:
    if not len(pairs):
        return
    text = (
        f"{counted(len(pairs), 'pair')} of {kind} copies in {scan.split} with two different labels"
    )
    level: Level = "serious" if kind == "exact" or len(pairs) > 0.001 * len(scan) else "warning"
    items = _items(scan, scan, pairs, kind)
    yield Finding("contradiction", level, text + _cut(pairs), {kind: len(pairs)}, items)


def _items(one: Scan, other: Scan, pairs: Pairs, kind: str) -> list[Item]:
    """The second picture of each pair, most similar first."""
    items = []
    for at in np.argsort(-pairs.likeness, kind="stable"):
        first, second = int(pairs.first[at]), int(pairs.second[at])
        partner = one.item(first, 1.0, "")
        name = one.pictures.classes[one.pictures.labels[first]]
        why = f"{kind} copy of {partner.name or f'{partner.split} {partner.row}'} ({name})"
        items.append(other.item(second, float(pairs.likeness[at]), why, partner))
    return items


def _cut(pairs: Pairs) -> str:
    return " (and more: the list was cut)" if pairs.full else ""


def _per_picture(
    images: NDArray[np.uint8], measure: Callable[[NDArray[np.float32]], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """measure(block (n, H, W, C)) -> (n,) over all pictures, block by block."""
    blocks = [measure(images[k : k + 4096].astype(np.float32)) for k in range(0, len(images), 4096)]
    return np.concatenate(blocks)
