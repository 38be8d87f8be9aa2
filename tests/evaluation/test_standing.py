"""Classifiers side by side under attack."""

from pathlib import Path

import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from guard.errors import InputError
from guard.evaluation.standing import Column, Standing, markdown, stand, table
from guard.threat import ThreatModel

THREAT = ThreatModel("linf", 0.1)


class Ramp(nn.Module):
    """Two classes by the mean pixel: L-inf eps moves the margin by exactly eps."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to logits (N, 2)."""
        above = (images.mean((1, 2, 3)) - 0.5) * self.scale
        return torch.stack([-above, above], 1)


def pictures() -> tuple[Tensor, Tensor]:
    """Flat pictures at known distances from the boundary, all of class 1 but the last."""
    grey = torch.tensor([0.52, 0.55, 0.58, 0.62, 0.70, 0.45])
    return grey.view(-1, 1, 1, 1).expand(-1, 1, 8, 8).clone(), torch.ones(6, dtype=torch.long)


@pytest.mark.parametrize(
    ("name", "right"), [("clean", 5), ("fgsm", 2), ("pgd-5", 2), ("cw-20", 2), ("apgd", 2)]
)
def test_the_count_is_the_geometry(name: str, right: int) -> None:
    """Of flat pictures those farther than eps from the boundary stand, no more and no fewer."""
    found = stand(Ramp(), *pictures(), Column(name, 6, THREAT))
    assert (found.right, found.count) == (right, 6)


def test_intervals_are_wilsons() -> None:
    """The interval is scipy's, and contains the share."""
    found = Standing(30, 100)
    low, high = found.interval
    theirs = binomtest(30, 100).proportion_ci(0.95, method="wilson")
    assert (low, high) == pytest.approx((theirs.low, theirs.high))
    assert low < found.share < high


def test_finished_cells_are_kept(tmp_path: Path) -> None:
    """A second run computes nothing; other weights are measured anew."""
    columns, lines = [Column("clean", 6, THREAT), Column("fgsm", 6, THREAT)], list[str]()
    kept = tmp_path / "cells.json"
    first = table({"a": Ramp()}, *pictures(), columns, kept=kept, log=lines.append)
    assert len(lines) == 2
    again = table({"a": Ramp()}, *pictures(), columns, kept=kept, log=lines.append)
    assert len(lines) == 2
    assert again == first
    other = Ramp()
    other.scale.data.fill_(-20.0)
    table({"a": other}, *pictures(), columns, kept=kept, log=lines.append)
    assert len(lines) == 4


def test_the_table_has_a_row_per_model() -> None:
    """Markdown: counts in the head, shares with intervals in the cells."""
    found = table({"a": Ramp(), "b": Ramp()}, *pictures(), [Column("fgsm", 6, THREAT)])
    head, _, *rows = markdown(found).splitlines()
    assert "(n 6)" in head
    assert [row.split("|")[1].strip() for row in rows] == ["a", "b"]
    assert "33.3 (9.7 to 70.0)" in rows[0]


def test_an_unknown_column_is_refused() -> None:
    """The error lists what there is."""
    with pytest.raises(InputError, match="no column 'pgd'; there are clean, fgsm"):
        Column("pgd", 6, THREAT)


def test_strangers_are_refused_before_anything_is_attacked() -> None:
    """Too few answers, or pictures of another shape: one line names the model."""
    images, labels = pictures()
    with pytest.raises(InputError, match="have 3 classes, a answers with 2"):
        table({"a": Ramp()}, images, labels + 1, [])
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(InputError, match=r"a does not take pictures of \(1, 8, 8\)"):
        table({"a": network}, images, labels, [])
