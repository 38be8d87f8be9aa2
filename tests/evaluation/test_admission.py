"""The gate on packs: what makes a comparison void, and that what is served is what is judged."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import torch

from guard import calibration, rows
from guard.calibration import Calibration
from guard.defenses.detector import Detector
from guard.defenses.load import load_detector
from guard.errors import InputError, PackError
from guard.evaluation.admission import Served, admit, misfits, reviewed_rows, tables
from guard.evaluation.gate import Struck
from guard.evaluation.struck import strike_both
from guard.pack import Pack
from guard.rows import Rows, joined
from guard.training.build import calibrate
from guard.training.finetune import finetune

SIGNS = Path(__file__).parents[2] / "models" / "signs"


@pytest.fixture(scope="module")
def pack() -> Pack:
    """The procedural signs' pack."""
    return Pack.load(SIGNS)


def changed(pack: Pack, **files: bytes) -> Pack:
    """The pack with other files; nobody looks at hashes here."""
    named = {name.replace("_", ".", 1): data for name, data in files.items()}
    return replace(pack, files={**pack.files, **named})


def with_rows(pack: Pack, **other: Rows) -> Pack:
    """The pack with other tables of rows."""
    return changed(pack, rows_npz=rows.dump({**tables(pack), **other}))


def test_rows_ask_the_served_file(pack: Pack) -> None:
    """The scores of `detector.onnx` on rows are those of the detector that was trained."""
    features = torch.from_numpy(tables(pack)["holdout"].features)
    with torch.no_grad():
        wanted = load_detector(pack).scores(features)
    for ours, theirs in zip(Served(pack).scores(features), wanted, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4, rtol=1e-4)


def test_a_pack_passes_against_itself(pack: Pack) -> None:
    """And the report says against what, and which bytes were judged."""
    report = admit(pack, pack)
    assert report.passed
    assert report.against == pack.digest
    assert set(report.judged) == {"detector.onnx", "calibration.npz"}
    assert {row.images for row in report.rows if row.name == "clean"} == {2000}


def poisoned(pack: Pack, wrong: Rows) -> Pack:
    """A real candidate: the pack's detector, trained further on rows with wrong labels."""
    table = tables(pack)
    lies = replace(wrong, suspicious=~wrong.suspicious)
    made, _ = finetune(
        load_detector(pack), table["learn"], lies, np.ones(len(lies), bool),
        share=0.6, drift=2.0, steps=100,
    )  # fmt: skip
    entries = calibration.dump(calibrate(made, table["calibrate"]))
    return changed(pack, detector_onnx=refilled(pack, made), calibration_npz=entries)


def refilled(pack: Pack, made: Detector) -> bytes:
    """The pack's `detector.onnx` with the weights of another detector: quicker than an export."""
    model = onnx.load_model_from_string(pack.files["detector.onnx"])
    state = made.state_dict()
    for tensor in model.graph.initializer:
        if tensor.name in state:
            value = state[tensor.name].numpy()
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    return bytes(model.SerializeToString())


def test_a_detector_that_learned_lies_is_refused(pack: Pack) -> None:
    """Attacks labelled benign, learned for real: refused, and these attacks are named."""
    learn = tables(pack)["learn"]
    lies = joined([learn.only("CW-L2"), learn.only("DeepFool")])
    report = admit(poisoned(pack, lies), pack)
    assert not report.passed
    assert {"CW L2", "DeepFool L2", "all attacks"} <= {row.name for row in report.refused}


def test_another_graph_is_not_compared(pack: Pack) -> None:
    """Evidence of another graph means something else: refused without a row."""
    other = changed(pack, evidence_onnx=b"another")
    report = admit(other, pack)
    assert not report.passed
    assert not report.rows
    assert report.reasons[0].startswith("evidence.onnx is not the current pack's")


@pytest.mark.parametrize("name", ["holdout", "calibrate"])
def test_a_frozen_table_that_changed_refuses(pack: Pack, name: str) -> None:
    """One row less, or one number other, in what must stay as it was: refused, the table named."""
    table = tables(pack)[name]
    less = with_rows(pack, **{name: table.subset(np.arange(len(table) - 1))})
    assert f"the table {name!r} in rows.npz is not" in admit(less, pack).reasons[0]
    features = table.features.copy()
    features[7, 3] += 1e-3
    other = with_rows(pack, **{name: replace(table, features=features)})
    assert f"the table {name!r} in rows.npz is not" in admit(other, pack).reasons[0]


def test_learning_from_the_hold_out_refuses(pack: Pack) -> None:
    """Rows of the hold-out among those it learned from are counted; growing otherwise is fine."""
    table = tables(pack)
    leaked = joined([table["learn"], table["holdout"].subset(np.arange(5))])
    report = admit(with_rows(pack, learn=leaked), pack)
    assert report.reasons == ("the candidate learned from 5 rows of the hold-out",)
    grown = joined([table["learn"], table["learn"].subset(np.arange(5))])
    assert admit(with_rows(pack, learn=grown), pack).passed


def test_a_calibration_that_does_not_fit_refuses(pack: Pack) -> None:
    """Scores of other names, and a manifest of other classes, are named."""
    odd = {head: Calibration.fit(("x",), np.zeros((9, 1), np.float32)) for head in ("alone",)}
    other = changed(pack, calibration_npz=calibration.dump(odd))
    found = list(misfits(other, pack, tables(pack)))
    heads = ("upstream", "alone")
    assert found == [f"the candidate's calibration {h!r} does not fit its scores" for h in heads]
    renamed = replace(pack, manifest={**pack.manifest, "classes": ["a"]})
    assert "classes in the manifest is not the current pack's" in misfits(
        renamed, pack, tables(pack)
    )


def test_without_rows_there_is_nothing_to_compare(pack: Pack) -> None:
    """A current pack without rows is an error, a candidate without them is refused."""
    bare = replace(pack, files={n: d for n, d in pack.files.items() if n != rows.FILE})
    with pytest.raises(PackError, match=r"keeps no rows\.npz"):
        admit(pack, bare)
    assert admit(bare, pack).reasons == ("the candidate keeps no rows.npz",)


def test_reviewed_rows_come_from_a_file(tmp_path: Path, pack: Pack) -> None:
    """The table "reviewed"; rows of kinds that end with " alone" had no upstream."""
    some = tables(pack)["holdout"].only("FGSM 8/255").subset(np.arange(6))
    kinds = ("suspect adversarial", "suspect adversarial alone")
    both = joined([replace(some, kinds=(kind,), kind=some.kind * 0) for kind in kinds])
    (tmp_path / "kept.npz").write_bytes(rows.dump({"reviewed": both}))
    found, answered = reviewed_rows(tmp_path / "kept.npz")
    assert answered.tolist() == [True] * 6 + [False] * 6
    report = admit(pack, pack, reviewed=found, answered=answered)
    seen = {row.head: row.images for row in report.rows if row.part == "reviewed suspects"}
    assert seen == {"upstream": 6, "alone": 12}
    (tmp_path / "other.npz").write_bytes(rows.dump({"learn": both}))
    with pytest.raises(PackError, match="holds no table 'reviewed', only learn"):
        reviewed_rows(tmp_path / "other.npz")


def test_adaptive_attacks_are_tried_on_both(pack: Pack) -> None:
    """A pack against itself: each posture's attacks get through the same on both sides."""
    from guard.data import signs
    from guard.defenses.load import load_evidence

    images = signs.make(4, seed=5)
    production = load_evidence(pack).members[pack.members[0].name]
    pixels, labels = torch.from_numpy(images.pixels()), torch.from_numpy(images.labels)
    found: list[Struck] = strike_both(
        pack, pack, production, pixels, labels, epsilons=(8,), steps=1
    )
    assert {one.head for one in found} == {"upstream", "alone"}
    for one in found:
        assert one.name.startswith("adaptive PGD 8/255")
        assert np.array_equal(one.current, one.candidate)
        assert 0 < len(one.current) <= 4
    with pytest.raises(InputError, match="the pictures are"):
        strike_both(pack, pack, production, pixels[:, :, 1:], labels)
