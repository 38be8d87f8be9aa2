"""Which suspects become rows, with which evidence, and what is said of the others."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from guard.errors import InputError
from guard.pack import Pack
from guard.training.cases import Case, from_export
from guard.training.gather import gather
from guard.training.reviewed import has_upstream
from tests.training.traffic import SIGNS, cases, exported

ELSEWHERE = "sha256:" + "0" * 64


@pytest.fixture(scope="module")
def parent() -> Pack:
    """The procedural signs."""
    return Pack.load(SIGNS)


def test_stored_evidence_is_used_as_it_is(parent: Pack) -> None:
    """Nothing is computed again; the odds are those of the stored answers; oldest first."""
    found = cases(parent, 10)
    gathered = gather(reversed(found), parent)
    assert (gathered.computed, gathered.left_out) == (0, {})
    rows = gathered.reviewed
    assert rows.columns == (*parent.columns, "upstream_odds")
    assert (np.diff(rows.day) >= 0).all()
    by_id = {case.id: case for case in found}
    for name, row, label in zip(rows.id, rows.features, rows.suspicious, strict=True):
        case = by_id[str(name)]
        assert np.array_equal(row[:-1], case.evidence)
        odds = -np.log(case.probabilities[1]) + np.log(case.probabilities.max())
        assert row[-1] == pytest.approx(odds, rel=1e-4)
        assert label == (case.label == "adversarial")
    assert (rows.reviewers == 2).all()
    assert has_upstream(rows.rows()).all()


def test_evidence_of_another_graph_is_computed_again(parent: Pack, tmp_path: Path) -> None:
    """From the picture, once: what the folder has is not made again."""
    found = cases(parent, 3, digest=ELSEWHERE)
    gathered = gather(found, parent, work=tmp_path)
    assert gathered.computed == len(found)
    (kept,) = tmp_path.iterdir()
    stored = {tuple(case.evidence) for case in found}
    assert not stored & {tuple(row[:-1]) for row in gathered.reviewed.features}
    unseen = [replace(case, image=never) for case in found]
    again = gather(unseen, parent, work=tmp_path)
    assert np.array_equal(again.reviewed.features, gathered.reviewed.features)
    assert list(tmp_path.iterdir()) == [kept]


def never() -> np.ndarray:  # type: ignore[type-arg]
    """A picture that nobody may ask for."""
    raise AssertionError("the evidence was kept")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda case: replace(case, agreed=False), "reviewers have not agreed"),
        (lambda case: replace(case, label="unsure"), "reviewers are unsure"),
        (
            lambda case: replace(case, evidence=case.evidence[:-1]),
            "its evidence is not the graph's",
        ),
        (lambda case: replace(case, upstream=np.ones(2, np.float32)), "it has other classes"),
        (lambda case: replace(case, evidence=case.evidence * np.nan), "not finite"),
        (lambda case: replace(case, upstream=case.upstream + np.inf), "not finite"),
        (lambda case: replace(case, model="other"), "another model"),
    ],
)
def test_what_cannot_be_learned_from_is_counted(
    parent: Pack, change: Callable[[Case], Case], reason: str
) -> None:
    """Each for its reason, and the others stay."""
    first, *others = cases(parent, 3)
    gathered = gather([change(first), *others], parent, model="signs")
    assert gathered.left_out == {reason: 1}
    assert len(gathered.reviewed) == len(others)


def test_the_same_suspect_counts_once(parent: Pack) -> None:
    """Two exports may overlap."""
    found = cases(parent, 3)
    gathered = gather([*found, *found], parent)
    assert gathered.left_out == {"there twice": len(found)}


def test_several_models_need_a_choice(parent: Pack) -> None:
    """Their upstreams differ, and so do the odds."""
    first, *others = cases(parent, 3)
    with pytest.raises(InputError, match="other and signs: say which"):
        gather([replace(first, model="other"), *others], parent)


def test_a_picture_of_another_size_is_named(parent: Pack) -> None:
    """The parent's graph cannot see it."""
    case = cases(parent, 1, digest=ELSEWHERE)[0]
    small = replace(case, image=lambda: np.zeros((3, 8, 8), np.float32))
    with pytest.raises(InputError, match=f"{case.id} is 3x8x8"):
        gather([small], parent)


def test_without_an_upstream_one_head_learns(parent: Pack) -> None:
    """The odds of such a row mean nothing, and its kind says so."""
    gathered = gather(cases(parent, 3, upstream=None), parent)
    assert not gathered.reviewed.has_upstream.any()
    assert not gathered.reviewed.features[:, -1].any()
    assert not has_upstream(gathered.reviewed.rows()).any()


def test_an_export_says_the_same(parent: Pack, tmp_path: Path) -> None:
    """Suspects in a file become the rows that they become from a gateway; pictures too."""
    file = exported(tmp_path / "r.parquet", parent, 3)
    read, told = list(from_export(file)), cases(parent, 3)
    one, other = gather(read, parent).reviewed, gather(told, parent).reviewed
    for name in ("id", "features", "suspicious", "client", "day", "reviewers", "sampled", "pack"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    for case, same in zip(read, told, strict=True):
        assert np.array_equal(case.image(), same.image())


def test_other_files_are_no_exports(tmp_path: Path) -> None:
    """The error names the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": [1], "label": [0]}), tmp_path / "pictures.parquet")
    with pytest.raises(InputError, match="is no export of suspects: it has no id"):
        list(from_export(tmp_path / "pictures.parquet"))
    with pytest.raises(InputError, match="missing"):
        list(from_export(tmp_path / "missing.parquet"))
