"""The gate: what is worse is refused and named, what is not passes."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from guard.calibration import Calibration
from guard.errors import InputError
from guard.evaluation.compared import ADAPTIVE, ENOUGH, Pair, lines
from guard.evaluation.gate import GateReport, Side, Struck, compare, pictures
from guard.rows import Rows, joined
from tests.evaluation.gates import ATTACKS, BENIGN, CLASSES, COLUMNS, Toy, broken, holdout, side

ROWS = holdout()


def judge(candidate: Side, **more: object) -> GateReport:
    """The candidate against the toy detector without a hole."""
    return compare(side(), candidate, holdout=ROWS, classes=CLASSES, **more)  # type: ignore[arg-type]


def refused(report: GateReport) -> set[str]:
    """Names of the rows that refuse it."""
    return {row.name for row in report.refused}


def test_the_same_detector_passes() -> None:
    """Nothing lost, nothing won, every kind and class has its rows for both heads and budgets."""
    report = judge(side())
    assert report.passed
    assert not report.reasons
    assert {(row.lost, row.won) for row in report.rows} == {(0, 0)}
    names = {*BENIGN, *ATTACKS, *(f"class {name}" for name in CLASSES), "all attacks"}
    assert {row.name for row in report.rows} == names | {"all corruptions"}
    heads = {(row.head, row.budget) for row in report.rows if row.name == "PGD"}
    assert heads == {(head, budget) for head in ("alone", "upstream") for budget in (0.05, 0.01)}


def test_a_better_detector_passes() -> None:
    """Catching more and alarming less is no reason to refuse."""
    attacks = ROWS.features[ROWS.suspicious, 1]
    better = side(Toy(attacks, depth=+2.0))
    report = judge(better)
    assert report.passed
    assert max(row.loss for row in report.rows) == 0 > min(row.loss for row in report.rows)


@pytest.mark.parametrize("name", ATTACKS)
def test_worse_on_one_attack_is_refused_by_name(name: str) -> None:
    """Half of one attack missed: that attack is named, and no other."""
    report = judge(broken(ROWS, lambda rows: rows.kind == rows.kinds.index(name)))
    assert not report.passed
    assert refused(report) & set(ATTACKS) == {name}
    assert not refused(report) & set(BENIGN)
    assert any(reason.startswith(f"{name}, TPR at 5%") for reason in report.reasons)


@pytest.mark.parametrize("name", BENIGN)
def test_worse_on_one_corruption_is_refused_by_name(name: str) -> None:
    """A tenth of one benign kind alarmed: that kind is named, and no other."""
    hole = broken(ROWS, lambda rows: rows.kind == rows.kinds.index(name), share=0.1)
    report = judge(hole)
    assert not report.passed
    assert refused(report) & set(BENIGN) == {name}
    assert not refused(report) & set(ATTACKS)
    assert any(reason.startswith(f"{name}, false alarms at 1%") for reason in report.reasons)


@pytest.mark.parametrize("attacks", [True, False], ids=["attacks", "benign"])
@pytest.mark.parametrize("label", range(len(CLASSES)), ids=CLASSES)
def test_worse_on_one_class_is_refused_by_name(label: int, attacks: bool) -> None:
    """Missed attacks or false alarms on one class: that class is named, and no other."""
    share = 0.3 if attacks else 0.1
    report = judge(
        broken(ROWS, lambda rows: (rows.label == label) & (rows.suspicious == attacks), share=share)
    )
    assert not report.passed
    classes = {name for name in refused(report) if name.startswith("class ")}
    assert classes == {f"class {CLASSES[label]}"}
    whats = {row.what for row in report.refused if row.name in classes}
    assert whats == {"TPR" if attacks else "false alarms"}


def test_a_point_is_enough_where_there_are_many() -> None:
    """With a thousand pictures and more, just over a point is refused and just under it passes."""
    benign = np.flatnonzero(ROWS.kind == ROWS.kinds.index("clean"))
    quiet = benign[ROWS.features[benign, 0] < 0]
    allowed = int(0.01 * BENIGN["clean"])
    assert judge(side(Toy(ROWS.features[quiet[:allowed], 1], 10.0))).passed
    assert "clean" in refused(judge(side(Toy(ROWS.features[quiet[: allowed + 4], 1], 10.0))))


def test_from_a_thousand_pictures_on_the_tolerance_alone_decides() -> None:
    """A loss of 15 that equals might show is refused of 1,000 pictures, and not of 999."""
    for count in (ENOUGH, ENOUGH - 1):
        before = np.arange(count) >= 100
        after = (np.arange(count) < 100) | (np.arange(count) >= 215)
        pair = Pair(before, after, np.ones(count, bool))
        row = pair.row("part", "name", "alone", 0.05, tolerance=0.01, level=0.05)
        assert (row.lost, row.won) == (115, 100)
        assert row.chance > 0.05
        assert row.refused == (count == ENOUGH)


def test_single_attacks_and_classes_may_lose_more() -> None:
    """One point for all together, two for one attack or corruption, five for one class."""
    least = {row.part: 1.0 for row in judge(side()).rows}
    for row in judge(side()).rows:
        least[row.part] = min(least[row.part], round(row.tolerance, 4))
    assert least == {
        "all together": 0.01,
        "corrupted pictures": 0.02,
        "static attacks": 0.02,
        "benign pictures by class": 0.05,
        "static attacks by class": 0.05,
    }


def test_few_pictures_need_more_than_chance() -> None:
    """Of a hundred pictures three lost are no proof, and the wider tolerance is stated."""
    flags = np.ones(100, bool)
    pair = Pair(flags, np.arange(100) >= 3, flags)
    row = pair.row("part", "few", "alone", 0.05, tolerance=0.01, level=0.05 / 8)
    assert row.loss == pytest.approx(0.03)
    assert not row.refused
    assert row.tolerance == pytest.approx(0.08)
    worse = Pair(flags, np.arange(100) >= 9, flags).row(
        "part", "few", "alone", 0.05, tolerance=0.01, level=0.05 / 8
    )
    assert worse.refused
    assert "100.0 -> 91.0 of 100" in str(worse)


@settings(deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 20))
def test_chance_is_mcnemars(lost: int, won: int, both: int) -> None:
    """The exact one-sided McNemar test of scipy, and losses are what was lost less what was won."""
    before = np.repeat([True, False, True], [lost, won, both])
    after = np.repeat([False, True, True], [lost, won, both])
    if not len(before):
        return
    pair = Pair(before, after, np.ones(len(before), bool))
    row = pair.row("part", "name", "alone", 0.05, tolerance=0.01, level=0.05)
    assert (row.lost, row.won) == (lost, won)
    assert row.loss == pytest.approx((lost - won) / len(before))
    if lost + won:
        theirs = binomtest(lost, lost + won, 0.5, alternative="greater").pvalue
        assert row.chance == pytest.approx(theirs)
        again = binomtest(won, lost + won, 0.5, alternative="greater").pvalue
        assert row.luck == pytest.approx(again)
    else:
        assert row.chance == row.luck == 1.0


def test_many_small_rows_refuse_equals_no_more_often() -> None:
    """Forty rows that share a level refuse equals in a twentieth of the cases at most."""
    random, hits = np.random.default_rng(5), 0
    for _ in range(300):
        before, after = random.random((2, 40 * 30)) < 0.7
        masks = {str(n): np.arange(40 * 30) // 30 == n for n in range(40)}
        pair = Pair(before, after, np.ones(40 * 30, bool))
        hits += any(r.refused for r in lines("p", pair, masks, "alone", 0.05, tolerance=0.0))
    assert hits <= 0.05 * 300


def test_one_small_row_among_many_still_tells() -> None:
    """Of forty classes with twenty attacks each, one that loses a third is refused, and only it."""
    flags = np.ones(800, bool)
    masks = {str(n): np.arange(800) // 20 == n for n in range(40)}
    after = ~((np.arange(800) // 20 == 7) & (np.arange(800) % 3 == 0))
    rows = list(lines("p", Pair(flags, after, flags), masks, "alone", 0.05, tolerance=0.01))
    assert [row.name for row in rows if row.refused] == ["7"]
    blind = {str(n): np.arange(800) == n for n in range(40)}
    seen = list(lines("p", Pair(flags, after, flags), blind, "alone", 0.05, tolerance=0.01))
    assert all(row.blind and not row.refused for row in seen)


def test_versions_of_one_picture_count_once() -> None:
    """Twelve lost versions of two pictures are two pictures, and no proof."""
    flags = np.ones(60, bool)
    after, picture = np.arange(60) >= 12, np.arange(60) // 6
    level = 0.05
    together = Pair(flags, after, flags, picture).row(
        "p", "n", "alone", 0.05, tolerance=0.01, level=level
    )
    apart = Pair(flags, after, flags).row("p", "n", "alone", 0.05, tolerance=0.01, level=level)
    assert (together.lost, together.worse, together.refused) == (12, 2, False)
    assert (apart.lost, apart.worse, apart.refused) == (12, 12, True)


def test_corruptions_are_versions_of_the_first_clean_pictures() -> None:
    """Benign rows with the labels of the first clean ones share their pictures; attacks do not."""
    found = pictures(ROWS)
    clean, blur = (np.flatnonzero(ROWS.kind == ROWS.kinds.index(k)) for k in ("clean", "blur"))
    assert np.array_equal(found[blur], found[clean[: len(blur)]])
    attacks = found[ROWS.suspicious]
    assert len(set(attacks.tolist())) == len(attacks)
    assert not set(attacks.tolist()) & set(found[clean].tolist())
    other = ROWS.subset(np.concatenate([clean, blur[1:]]))
    assert len(set(pictures(other).tolist())) == len(other)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(20, ENOUGH - 1), st.floats(0.02, 0.5))
def test_equals_are_hardly_ever_refused(seed: int, count: int, change: float) -> None:
    """Pictures that change hands by a fair coin refuse a row less often than its level says."""
    random = np.random.default_rng(seed)
    flags = np.ones((200, count), bool)
    moved = random.random((200, count)) < change
    coin = random.random((200, count)) < 0.5
    before, after = flags & ~(moved & coin), flags & ~(moved & ~coin)
    level = 0.05
    hits = sum(
        Pair(one, two, good).row("p", "n", "alone", 0.05, tolerance=0.0, level=level).refused
        for one, two, good in zip(before, after, flags, strict=True)
    )
    assert binomtest(hits, 200, level, alternative="greater").pvalue > 1e-6


def test_a_small_calibration_widens_the_tolerance() -> None:
    """Where few calibration pictures lie above a threshold, its own error is added and stated."""
    few = compare(side(images=400), side(images=400), holdout=ROWS)
    many = compare(side(images=20000), side(images=20000), holdout=ROWS)
    wide = {(r.name, r.budget): r.tolerance for r in few.rows if r.head == "alone"}
    slim = {(r.name, r.budget): r.tolerance for r in many.rows if r.head == "alone"}
    assert wide["PGD", 0.01] > slim["PGD", 0.01]
    assert slim["clean", 0.05] == slim["clean", 0.01] == 0.01


def test_a_budget_the_current_one_cannot_resolve_is_left_out() -> None:
    """And one that only the candidate cannot resolve refuses it."""
    assert {row.budget for row in compare(side(images=50), side(), holdout=ROWS).rows} == {0.05}
    report = judge(side(images=50))
    assert "the candidate's calibration 'alone' cannot resolve a budget of 1%" in report.reasons


def test_reviewed_suspects_have_their_own_rows() -> None:
    """A candidate that forgot what reviewers said of kept-apart suspects is refused for that."""
    random = np.random.default_rng(3)
    features = np.stack([random.normal(3, 1, 90), 9000 + np.arange(90), np.zeros(90)], 1)
    attacks = Rows.of("suspect adversarial", COLUMNS, features, suspicious=True)
    benign = Rows.of("suspect benign", COLUMNS, features - [3, -500, 0], suspicious=False)
    reviewed = joined([attacks, benign])
    worse = side(Toy(attacks.features[:40, 1].astype(np.float32), -10.0))
    report = judge(worse, reviewed=reviewed)
    assert refused(report) == {"adversarial"}
    assert {row.part for row in report.refused} == {"reviewed suspects"}
    silent = judge(worse, reviewed=reviewed, answered=np.zeros(180, bool))
    assert {row.head for row in silent.refused} == {"alone"}


def test_adaptive_attacks_have_their_rows() -> None:
    """More attacks that go through than before are refused; the share is the undetected one."""
    before = np.arange(60) < 20
    struck = Struck("adaptive PGD 8/255", "alone", 0.05, before, np.arange(60) < 40)
    (row,) = judge(side(), adaptive=[struck]).refused
    assert (row.part, row.what) == (ADAPTIVE, "undetected")
    assert (row.current, row.candidate) == pytest.approx((1 / 3, 2 / 3))
    again = Struck("adaptive PGD 8/255", "alone", 0.05, before, before)
    assert judge(side(), adaptive=[again]).passed


def test_rows_of_a_head_that_does_not_act_are_told() -> None:
    """Where the head with the upstream's answer decides, the other one's losses refuse nothing."""
    worse = broken(ROWS, lambda rows: rows.kind == rows.kinds.index("PGD"))
    report = judge(worse, heads=("upstream",))
    assert {row.head for row in report.refused} == {"upstream"}
    assert {row.head for row in report.rows} == {"upstream", "alone"}
    assert report.record()["heads"] == ["upstream"]
    with pytest.raises(InputError, match="heads are some of upstream, alone, not none"):
        judge(worse, heads=())


def test_scores_that_are_not_finite_refuse() -> None:
    """A NaN flags nothing and allows nothing: it is a problem of its own."""
    report = judge(side(Toy(ROWS.features[:5, 1], float("nan"))))
    assert not report.passed
    assert report.reasons[0].startswith("5 scores on hold-out rows are not finite")


def test_nothing_to_compare_is_no_pass() -> None:
    """Without rows nothing was shown, so nothing passes."""
    assert not compare(side(), side(), holdout=ROWS.subset(np.zeros(0, int))).passed


def test_rows_of_another_graph_are_refused() -> None:
    """Other columns, or a calibration of other scores, are an error and not a verdict."""
    other = Rows.of("clean", ("one", "odds"), np.zeros((3, 2), np.float32), suspicious=False)
    with pytest.raises(InputError, match="do not belong to one graph"):
        compare(side(), side(), holdout=other)
    odd = Calibration.fit(("x",), np.zeros((9, 1), np.float32))
    with pytest.raises(InputError, match="'upstream' does not fit"):
        judge(Side(Toy(), {**side().calibrations, "upstream": odd}))


def test_the_record_is_json_and_says_it_all() -> None:
    """What `gate.json` holds: outcome, reasons, against what, and every row."""
    report = judge(
        broken(ROWS, lambda rows: rows.kind == rows.kinds.index("PGD")),
        against="sha256:00",
        judged={"detector.onnx": "ab"},
    )
    record = json.loads(json.dumps(report.record()))
    assert (record["passed"], record["against"]) == (False, "sha256:00")
    assert record["judged"] == {"detector.onnx": "ab"}
    assert len(record["rows"]) == len(report.rows)
    assert sum(row["refused"] for row in record["rows"]) == len(report.refused)
    assert record["reasons"] == list(report.reasons)
