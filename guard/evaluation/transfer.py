"""Transfer: do examples made against one member of an ensemble fool the others?

The more often they do, the less the members add to each other (Papernot, McDaniel & Goodfellow
2016; Tramer et al. 2017). The diagonal is the white-box attack on each member, the last row the
one on all of them together.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from guard.attacks import round8
from guard.errors import InputError
from guard.evaluation.robustness import Averaged, accuracy
from guard.evaluation.standing import Standing

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]
Log = Callable[[str], None]
TOGETHER = "ensemble"  # the mean of the members' probabilities
BATCH = 250
CELL, MARGIN, LABEL, HEADER = 84, 24, 120, 96  # pixels of the heat map
INK, FAINT, PAPER = "#1c1f24", "#7a818c", "#ffffff"


@dataclass(frozen=True)
class Transfer:
    """Who is still right on whose examples.

    names: the M members and the ensemble; right: (M+1, M+1) pictures that the classifier of the
    column names right when attacked through the one of the row; count: pictures attacked, which
    every member had right; asked: pictures they were chosen from.
    """

    names: tuple[str, ...]
    right: tuple[tuple[int, ...], ...]
    count: int
    asked: int
    attack: str = ""

    def share(self, source: str, target: str) -> float:
        """Share of the pictures that `target` still has right when `source` is attacked."""
        row = self.right[self.names.index(source)]
        return row[self.names.index(target)] / self.count

    @property
    def across(self) -> float:
        """Mean share right of single members on each other's examples; 1: nothing transfers."""
        members = self.names[:-1]
        pairs = [(s, t) for s in members for t in members if s != t]
        return sum(self.share(s, t) for s, t in pairs) / len(pairs)

    @property
    def alone(self) -> float:
        """Mean share right of single members on their own examples."""
        return sum(self.share(name, name) for name in self.names[:-1]) / (len(self.names) - 1)

    def record(self) -> dict[str, Any]:
        """For JSON: shares by source and target, 95% intervals, and the summaries."""
        cells = {
            source: {target: self._cell(row, column) for column, target in enumerate(self.names)}
            for row, source in enumerate(self.names)
        }
        counted = {"pictures": self.count, "chosen_from": self.asked, "attack": self.attack}
        means = {"own": self.alone, "others": self.across}
        return {**counted, "source_then_target": cells, "members_right_on_examples_of": means}

    def _cell(self, row: int, column: int) -> dict[str, Any]:
        cell = Standing(self.right[row][column], self.count)
        return {"share": cell.share, "interval": list(cell.interval)}

    def markdown(self) -> str:
        """The table, shares right in percent; a row per attacked classifier."""
        lines = [
            f"| made against | {' | '.join(f'{name} right' for name in self.names)} |",
            f"| --- |{' ---: |' * len(self.names)}",
        ]
        for source in self.names:
            cells = " | ".join(f"{100 * self.share(source, name):.1f}" for name in self.names)
            lines.append(f"| {source} | {cells} |")
        lines.append("")
        lines.append(
            f"{self.attack}, {self.count} pictures that all had right (of {self.asked}). Members "
            f"alone: on their own examples {100 * self.alone:.1f}, on each other's "
            f"{100 * self.across:.1f}."
        )
        return "\n".join(lines)

    def picture(self) -> Image.Image:
        """A heat map: dark red where examples fool, white where nothing happens."""
        size = len(self.names)
        width = max(MARGIN + LABEL + size * CELL + MARGIN, 420)
        page = Image.new("RGB", (width, HEADER + size * CELL + MARGIN), PAPER)
        pen, font = ImageDraw.Draw(page), ImageFont.load_default(14)
        pen.text((MARGIN, 16), f"right in %, {self.attack}", INK, ImageFont.load_default(17))
        pen.text((MARGIN, 42), "row: made against; column: answers", FAINT, font)
        for row, source in enumerate(self.names):
            top, left = HEADER + row * CELL, MARGIN + LABEL
            pen.text((MARGIN, top + CELL // 2 - 8), source[:14], INK, font)
            pen.text((left + row * CELL + 4, HEADER - 22), source[:10], INK, font)
            for column, target in enumerate(self.names):
                share, at = self.share(source, target), left + column * CELL
                box = (at, top, at + CELL - 2, top + CELL - 2)
                pen.rectangle(box, _heat(share))
                middle = (at + CELL // 2 - 1, top + CELL // 2 - 1)
                ink = PAPER if share < 0.4 else INK
                pen.text(middle, f"{100 * share:.1f}", ink, ImageFont.load_default(16), "mm")
        return page


def transfer(
    members: Mapping[str, nn.Module],
    images: Tensor,
    labels: Tensor,
    attack: Attack,
    *,
    title: str = "",
    log: Log = lambda _line: None,
) -> Transfer:
    """Attack each member, and all together, and ask everyone about the examples.

    images (N, C, H, W) in [0, 1], labels (N,); only pictures that every member has right are
    attacked. Examples are rounded to 8 bits: they travel. Raises InputError for fewer than two
    members, for members of different classes or picture shapes, and when no picture is left.
    """
    everyone = _everyone(members, images, labels)
    right = torch.stack([accuracy(one, images, labels) for one in everyone.values()]).all(0)
    chosen, named = images[right], labels[right]
    if not len(chosen):
        raise InputError(f"none of the {len(images)} pictures is one that every member has right")
    rows = []
    for source, victim in everyone.items():
        pairs = zip(torch.split(chosen, BATCH), torch.split(named, BATCH), strict=True)
        moved = round8(torch.cat([attack(victim, x, y) for x, y in pairs]))
        rows.append(tuple(int(accuracy(one, moved, named).sum()) for one in everyone.values()))
        told = ", ".join(f"{k} {100 * n / len(chosen):.1f}%" for k, n in zip(everyone, rows[-1]))  # noqa: B905
        log(f"attacked {source}: right are {told}")
    return Transfer(tuple(everyone), tuple(rows), len(chosen), len(images), title)


def _everyone(
    members: Mapping[str, nn.Module], images: Tensor, labels: Tensor
) -> dict[str, nn.Module]:
    """The members and their mean; InputError names a pair that does not fit together."""
    if len(members) < 2:
        raise InputError("transfer takes two members at least")
    if TOGETHER in members:
        raise InputError(f"no member may be called {TOGETHER!r}")
    if not len(images):
        raise InputError("there are no pictures to attack")
    classes: dict[str, int] = {}
    for name, member in members.items():
        try:
            with torch.no_grad():
                classes[name] = member.eval()(images[:1]).shape[1]
        except RuntimeError as error:
            shape = tuple(images.shape[1:])
            raise InputError(f"{name} does not take pictures of shape {shape}") from error
    first = next(iter(classes))
    for name, count in classes.items():
        if count != classes[first]:
            raise InputError(f"{name} has {count} classes and {first} has {classes[first]}")
    if len(labels) != len(images) or int(labels.max()) >= classes[first]:
        raise InputError(
            f"{len(images)} pictures have {len(labels)} labels up to {int(labels.max())} and "
            f"{first} has {classes[first]} classes"
        )
    return {**members, TOGETHER: Averaged(list(members.values())).eval()}


def _heat(share: float) -> tuple[int, int, int]:
    """White at 1, dark red at 0."""
    dark = (139, 26, 26)
    mixed = [round(share * 255 + (1 - share) * part) for part in dark]
    return mixed[0], mixed[1], mixed[2]
