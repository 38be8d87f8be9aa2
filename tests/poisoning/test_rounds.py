"""A poisoned round on a shipped pack's own rows: the attack is real, and the guards hold it."""

from pathlib import Path

import pytest

from guard import rows
from guard.defenses.detector import Detector
from guard.defenses.load import load_detector
from guard.pack import Pack
from guard.rows import Rows
from tests.poisoning.material import KNOWN
from tests.poisoning.pool import ATTACKS as ATTACKERS
from tests.poisoning.pool import pool
from tests.poisoning.rounds import ATTACKS, Tables, careless, play, rates

PACK = Path(__file__).parents[2] / "models" / "gtsrb"
FAMILY = "CW-L2"  # of the pack's own; the long form has families that it does not know


@pytest.fixture(scope="module")
def served() -> tuple[Detector, Tables]:
    """The shipped detector and its tables."""
    pack = Pack.load(PACK)
    return load_detector(pack), rows.load(pack.files[rows.FILE])


def material(learn: Rows) -> Rows:
    """The pack's rows as callers' rows."""
    kinds = tuple(
        KNOWN + kind if learn.suspicious[learn.kind == n].any() and kind != FAMILY else kind
        for n, kind in enumerate(learn.kinds)
    )
    return Rows(kinds=kinds, **{k: v for k, v in vars(learn).items() if k != "kinds"})


def lost(detector: Detector, served: tuple[Detector, Tables]) -> float:
    """Of TPR at 5% on the hold-out."""
    parent, tables = served
    before, after = (rates(d, tables, tables["holdout"])[ATTACKS] for d in (parent, detector))
    return before - after


@pytest.mark.parametrize("attack", ["label flips", "one client floods"])
def test_a_tenth_of_the_pool_costs_no_point(served: tuple[Detector, Tables], attack: str) -> None:
    """An attacker with 10% of what is reviewed gets few rows in, and what is served afterwards
    loses at most a point; flipped labels, believed, cost more than that."""
    parent, tables = served
    log = pool(material(tables["learn"]), FAMILY, attack, 0.1, seed=1)
    done = play(parent, tables, log, seed=1)
    assert done.hostile < 0.4 * log.hostile.sum()
    assert lost(done.detector, served) <= 0.01
    if attack == "label flips":
        assert lost(careless(parent, tables["learn"], log, seed=1), served) > 0.01


def test_every_attacker_has_the_share_it_is_said_to_have(served: tuple[Detector, Tables]) -> None:
    """The pools are what the table says: a quarter of the rows, with the attacker's labels."""
    sent = material(served[1]["learn"])
    for attack in ("label flips", "one client floods"):
        log = pool(sent, FAMILY, attack, 0.25, seed=0)
        assert log.hostile.mean() == pytest.approx(0.25, abs=0.01)
        said = log.reviewed.suspicious[log.hostile].mean()
        assert said == pytest.approx(0.5 if attack == "label flips" else 0.0, abs=0.01)
    assert set(ATTACKERS) > {"nobody", "label flips", "one client floods"}
