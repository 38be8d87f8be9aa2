"""Attacks made here for a round: rows that are known for sure, and kept when they are done."""

from pathlib import Path

import pytest
import torch

from guard.data import signs
from guard.defenses.load import load_evidence
from guard.errors import InputError
from guard.pack import Pack
from guard.training import fresh
from guard.training.parts import pictures
from guard.training.pictures import Pictures
from tests.training.traffic import SIGNS


class Blind(torch.nn.Module):
    """Says which channel is strongest, as far as there are as many classes."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to logits (N, 6)."""
        return images.mean((2, 3)).repeat(1, 2)


@pytest.fixture(scope="module")
def few() -> Pictures:
    """Signs, called what the classifier says of them."""
    found = pictures(signs.make(12, seed=5))
    with torch.no_grad():
        labels = Blind()(found.pixels(torch.arange(len(found)))).argmax(1)
    return Pictures(found.images, labels)


def test_each_kind_is_made_once(
    few: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second time everything is read; with another classifier all of it is made anew."""
    some = {name: fresh.FRESH[name] for name in ("FGSM 6/255", "PGD-20 8/255")}
    monkeypatch.setattr(fresh, "FRESH", some)
    parent = Pack.load(SIGNS)
    graph, said = load_evidence(parent), []
    rows = fresh.fresh_rows(
        parent, graph, Blind(), few, work=tmp_path, victim="blind", log=said.append
    )
    assert {"fresh clean", "fresh blur"} <= set(rows.kinds)
    assert rows.suspicious.any() and not rows.suspicious.all()
    assert (rows.label >= 0).all()
    assert len(said) == 6 + len(some)  # clean, five corruptions, the attacks
    again = fresh.fresh_rows(
        parent, graph, Blind(), few, work=tmp_path, victim="blind", log=said.append
    )
    assert (again.features == rows.features).all()
    assert len(said) == 6 + len(some)
    fresh.fresh_rows(parent, graph, Blind(), few, work=tmp_path, victim="other", log=said.append)
    assert len(said) == 2 * (6 + len(some))


def test_pictures_of_another_shape_are_refused(tmp_path: Path) -> None:
    """Before anything is made."""
    parent = Pack.load(SIGNS)
    small = Pictures(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(InputError, match="not \\(3, 32, 32\\)"):
        fresh.fresh_rows(
            parent, load_evidence(parent), Blind(), small, work=tmp_path, victim="blind"
        )
