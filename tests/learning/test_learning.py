"""The whole loop, small: a live gateway, labels over public calls, retraining, promotion."""

from pathlib import Path

import pytest
import torch

from guard import load_member
from guard.data import signs
from tests.learning.__main__ import School, term
from tests.learning.families import FAMILIES, margin
from tests.learning.pictures import Material
from tests.learning.stage import staged

PACK = Path(__file__).parents[2] / "models" / "signs"


def test_an_unknown_attack_is_learned_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After one round, pictures never sent are flagged more often, clean ones within budget."""
    monkeypatch.setenv("GUARD_HOME", str(tmp_path / "home"))
    production = load_member(PACK, "sentinel")  # any classifier that is fooled serves here
    material = Material(signs.make(900, seed=5_000_001), signs.make(600, seed=5_000_002))
    attack = FAMILIES["colour"]
    attacks, clean = material.traffic(production, attack, 300)
    held = material.measured(production, attack, 150)
    constants = {"clean": torch.from_numpy(material.held.pixels())}
    folder = tmp_path / "stage"
    folder.mkdir()
    calibrated = signs.make(600, seed=5_000_003)
    with staged(folder, PACK, production, calibrated, sample_rate=0.5) as stage:
        found = term(School(stage, held, constants, 300), PACK, [(attacks, clean)])
    (only,) = found["rounds"]
    assert only["promoted"], only["said"]
    before, after = found["before"], only["after"]
    assert after["attack"] > before["attack"] + 0.2
    assert after["clean"] < 0.09


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_family_makes_pictures_that_fool_more(name: str) -> None:
    """Pictures stay pictures, and the true class is less far ahead than before on most of them."""
    network = load_member(PACK, "sentinel")
    pictures = signs.make(8, seed=77)
    images, labels = torch.from_numpy(pictures.pixels()), torch.from_numpy(pictures.labels)
    found = FAMILIES[name](network, images, labels, torch.Generator().manual_seed(0)).detach()
    assert found.shape == images.shape
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    with torch.no_grad():
        closer = margin(network, found, labels) < margin(network, images, labels)
    assert float(closer.float().mean()) > 0.9
