"""A round of learning: a candidate that is better where it was taught, and the same elsewhere."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from guard import calibration, rows
from guard.defenses.load import load_detector
from guard.errors import InputError, PackError
from guard.pack import Pack
from guard.pipeline import Pipeline
from guard.provenance import check_provenance
from guard.rows import Rows, joined
from guard.training import retrain as module
from guard.training.calibrate import write
from guard.training.candidate import OPERATOR, thresholds
from guard.training.gather import mark
from guard.training.private import Private
from guard.training.retrain import HELD, Order, Outcome, Own, own, retrain
from guard.training.reviewed import from_traffic
from tests.training.traffic import cases, features, small_pack


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """A small pack with rows."""
    return Pack.load(small_pack(tmp_path_factory.mktemp("packs") / "small"))


@pytest.fixture(scope="module")
def made(parent: Pack, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A candidate that was taught one attack."""
    out = tmp_path_factory.mktemp("candidates") / "small-r1"
    return retrain(cases(parent, 120), Order(parent, out, steps=120, trained_by="anna"))


def flagged(pack: Pack, found: np.ndarray, budget: float = 0.05) -> float:  # type: ignore[type-arg]
    """The share of rows (R, F) that a pack's detector flags, with the upstream's answer."""
    _, both = load_detector(pack).requires_grad_(False).scores(torch.from_numpy(found))
    entry = calibration.load(pack.files["calibration.npz"])["upstream"]
    return float((entry.p_values(both.numpy())[:, -1] <= budget).mean())


def test_it_learns(parent: Pack, made: Outcome) -> None:
    """On other rows of the attack the candidate is far better, on clean ones it stays in budget."""
    candidate = Pack.load(made.folder)
    assert made.gate.passed and made.gate.rows
    attacks = features(parent, 300, attack=True, seed=9)
    assert flagged(candidate, attacks) > flagged(parent, attacks) + 0.3
    assert flagged(candidate, features(parent, 300, attack=False, seed=9)) < 0.15


def test_a_candidate_differs_in_the_detector_alone(parent: Pack, made: Outcome) -> None:
    """Graph, classes and frozen rows are the parent's; it is served, under a name of its own."""
    candidate = Pack.load(made.folder)
    assert candidate.files["evidence.onnx"] == parent.files["evidence.onnx"]
    assert candidate.files["detector.onnx"] != parent.files["detector.onnx"]
    before, after = (rows.load(pack.files[rows.FILE]) for pack in (parent, candidate))
    for name in ("calibrate", "holdout"):
        assert np.array_equal(before[name].features, after[name].features)
    assert (candidate.name, candidate.serial) == ("small-r1", 1)
    assert (candidate.parent, candidate.lineage) == (parent.digest, (parent.digest,))
    assert candidate.digest == made.digest
    Pipeline.load(made.folder, max_false_positive_rate=0.05)  # runs the golden vectors
    check_provenance(candidate.files, candidate.manifest)


def test_every_row_is_accounted_for(parent: Pack, made: Outcome) -> None:
    """What came in is learned, held apart or dropped for a reason; no id is in the clear."""
    told, found = made.retrained, cases(parent, 120)
    kept = rows.load(Pack.load(made.folder).files[rows.FILE])["learn"]
    assert from_traffic(kept).sum() == told["counts"]["learned"] == len(told["rows"])
    dropped = sum(n for k, n in told["selection"].items() if k not in ("kept", "limits"))
    assert told["selection"]["kept"] + dropped == told["counts"]["reviewed"] == len(found)
    apart = {mark(case.id) for case in found if int(mark(case.id), 16) % HELD == 0}
    assert apart
    assert not apart & {line.split()[0] for line in told["rows"]}
    assert set(told["seen"]) == {mark(case.id) for case in found}
    card = (made.folder / "MODEL_CARD.md").read_text()
    assert told["ids_sha256"] in card
    assert "for anna" in card
    assert all(case.id not in (made.folder / "manifest.json").read_text() for case in found)


def test_the_next_round_replays_and_takes_what_is_new(made: Outcome, tmp_path: Path) -> None:
    """Known suspects are not learned twice; evidence of an ancestor's counts as stored."""
    parent = Pack.load(made.folder)
    grandparent = parent.lineage[0]
    known = cases(parent, 120, digest=grandparent)
    with pytest.raises(InputError, match="has not learned from"):
        retrain(known, Order(parent, tmp_path / "none"))
    more = cases(parent, 60, seed=50, digest=grandparent)
    again = retrain([*known, *more], Order(parent, tmp_path / "small-r2", steps=60))
    told = again.retrained
    assert told["counts"]["computed_again"] == 0
    assert told["counts"]["learned"] <= len(more)
    child = Pack.load(again.folder, check_pin=False)
    assert child.lineage == (grandparent, parent.digest)
    learned = rows.load(child.files[rows.FILE])["learn"]
    assert from_traffic(learned).sum() == told["counts"]["learned"] + len(
        parent.manifest["retrained"]["rows"]
    )
    assert len(told["seen"]) == len({case.id for case in (*known, *more)})


def test_a_worse_candidate_is_put_aside(
    parent: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A detector that learned the opposite is refused by name, and never signed."""
    real = module.finetune

    def contrary(*given: Any, **more: Any) -> Any:
        detector, report = real(*given, **more)
        for head in (detector.alone, detector.upstream):
            head.last.weight.mul_(-50)
        return detector, report

    monkeypatch.setattr(module, "finetune", contrary)
    refused = retrain(cases(parent, 60), Order(parent, tmp_path / "bad", steps=5))
    assert not refused.gate.passed
    assert refused.folder == tmp_path / "bad.refused"
    assert not (tmp_path / "bad").exists()
    assert "all attacks" in refused.gate.reasons[0]
    assert refused.gate.reasons[0] in (refused.folder / "MODEL_CARD.md").read_text()
    with pytest.raises(PackError, match=r"nor signed \(no model.sig\)"):
        Pack.load(refused.folder)
    assert json.loads((refused.folder / "gate.json").read_text())["passed"] is False


def test_the_operators_own_thresholds_are_refitted(parent: Pack, tmp_path: Path) -> None:
    """Rows that `guard calibrate` kept move into the candidate, with thresholds from them."""
    found = rows.load(parent.files[rows.FILE])["calibrate"].subset(np.arange(400))
    mine = Rows.of("clean", found.columns, found.features * 0.9, suspicious=False)
    about = {name: {"upstream": "grpc://mine"} for name in ("alone", "upstream")}
    detector = load_detector(parent).requires_grad_(False)
    tables = {**rows.load(parent.files[rows.FILE]), OPERATOR: mine}
    entries = thresholds(detector, tables, about)
    assert len(entries["upstream"]) == 400
    assert entries["upstream"].about["upstream"] == "grpc://mine"
    alone = Rows.of("clean alone", mine.columns, mine.features, suspicious=False)
    halves = thresholds(detector, {**tables, OPERATOR: alone}, {})
    assert (len(halves["alone"]), len(halves["upstream"])) == (400, len(tables["calibrate"]))
    out = tmp_path / "small-r1"
    order = Order(parent, out, own=Own(entries, mine), steps=60)
    candidate = Pack.load(retrain(cases(parent, 60), order).folder, check_pin=False)
    kept = rows.load(candidate.files[rows.FILE])[OPERATOR]
    assert np.array_equal(kept.features, mine.features)
    assert len(calibration.load(candidate.files["calibration.npz"])["upstream"]) == 400


def test_a_calibration_has_to_be_the_parents(parent: Pack, tmp_path: Path) -> None:
    """Another pack's, or one without rows, is refused in one line."""
    path = tmp_path / "signs.npz"
    entries = calibration.load(parent.files["calibration.npz"])
    write(path, entries)
    with pytest.raises(PackError, match="another pack"):
        own(path, parent)
    fitting = {
        name: calibration.Calibration(entry.names, entry.scores, {"pack": parent.digest})
        for name, entry in entries.items()
    }
    write(path, fitting)
    with pytest.raises(PackError, match="no rows"):
        own(path, parent)
    write(path, fitting, rows.load(parent.files[rows.FILE])["calibrate"])
    assert own(path, parent).rows is not None
    assert own(None, parent).rows is None


def test_a_pack_without_rows_cannot_be_retrained(tmp_path: Path) -> None:
    """It says what to do about it."""
    from guard.testing import make_pack

    bare = Pack.load(make_pack(tmp_path / "bare"), check_pin=False)
    with pytest.raises(PackError, match="keeps no rows"):
        retrain([], Order(bare, tmp_path / "out"))


def test_a_round_may_teach_what_was_made_here(parent: Pack, tmp_path: Path) -> None:
    """Fresh rows are trusted: no share, no filter; they are replayed later, and told apart."""
    table = rows.load(parent.files[rows.FILE])["learn"].columns
    made = [
        Rows.of(kind, table, features(parent, 80, attack=attack), suspicious=attack)
        for kind, attack in (("fresh clean", False), ("fresh Square", True))
    ]
    order = Order(parent, tmp_path / "small-r1", fresh=joined(made), steps=40)
    found = retrain([], order)
    assert found.retrained["fresh"] == {"fresh clean": 80, "fresh Square": 80}
    assert found.retrained["counts"]["learned"] == 0
    learn = rows.load(Pack.load(found.folder, check_pin=False).files[rows.FILE])["learn"]
    assert len(learn.only("fresh Square")) == 80
    assert not from_traffic(learn).any()


def test_a_private_round_says_what_was_spent(parent: Pack, tmp_path: Path) -> None:
    """DP-SGD by Opacus: epsilon and delta are in the card and in the provenance."""
    private = Private(noise=2.0, delta=1e-4)
    order = Order(parent, tmp_path / "small-r1", private=private, steps=5)
    found = retrain(cases(parent, 60), order)
    spent = found.retrained["finetune"]["privacy"]
    assert 0 < spent["epsilon"] < 10
    assert (
        f"epsilon {spent['epsilon']:.2f} at delta 0.0001"
        in (found.folder / "MODEL_CARD.md").read_text()
    )
