"""What may be learned from traffic: every filter drops what it is for, and says so."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.errors import ConfigError, InputError
from guard.rows import joined
from guard.training.reviewed import Reviewed
from guard.training.selection import REASONS, Limits, described, select
from tests.training.evidence import around, known, reviewed

# No filter at all: tests switch on the one that they are about.
OPEN = Limits(
    quorum=0, duplicates=0, per_client_day=10**6, per_client=1, outliers=0, label_noise=False,
    fewest=0,
)  # fmt: skip


def honest(count: int = 100, **given: object) -> Reviewed:
    """Benign rows like the known ones, and attacks of a family that the known ones are not."""
    rows = joined(
        [
            around((0, 0, 0), count, suspicious=False, kind="clean", seed=2),
            around((6, -4, 0), count, suspicious=True, kind="new", seed=3),
        ]
    )
    return reviewed(rows, **given)  # type: ignore[arg-type]


def test_a_round_of_honest_rows_is_kept_nearly_whole() -> None:
    """With the limits as they are, an honest round loses few rows, of either label, even though its
    attacks are of a family that nothing trusted knows. (Three numbers are often nearly alike.)"""
    new = honest()
    kept = select(new, known(), Limits(duplicates=0.02)).kept
    assert kept[new.suspicious].mean() > 0.85
    assert kept[~new.suspicious].mean() > 0.85


def test_labels_that_too_few_agreed_on_are_not_learned() -> None:
    """Fewer reviewers than the quorum, or one who said otherwise: dropped, each for its reason."""
    new = honest(4, reviewers=np.array([1, 2, 2, 2, 1, 2, 2, 2], np.int16))
    new = replace(new, dissent=np.array([0, 1, 0, 0, 0, 0, 0, 0], np.int16))
    found = select(new, known(), replace(OPEN, quorum=2))
    assert found.reason.tolist() == ["quorum", "dissent", "", "", "quorum", "", "", ""]
    assert found.counts() == dict.fromkeys(REASONS, 0) | {"kept": 5, "quorum": 2, "dissent": 1}


def test_near_duplicates_count_once() -> None:
    """A hundred copies of one picture, hardly different and from as many clients, are one row."""
    one = around((3, 3, 3), 1, suspicious=False, kind="copy")
    rows = joined([one] * 100)
    jitter = 0.01 * np.random.default_rng(0).normal(size=rows.features.shape)
    rows = replace(rows, features=(rows.features + jitter).astype(np.float32))
    found = select(reviewed(rows, clients=100), known(), replace(OPEN, duplicates=0.25))
    assert found.counts() == dict.fromkeys(REASONS, 0) | {"kept": 1, "duplicate": 99}


def test_the_same_evidence_with_another_label_is_no_duplicate() -> None:
    """An attacker's copy of an honest row with the label flipped does not push it out."""
    rows = joined([around((6, -4, 0), 30, suspicious=True, kind="new")])
    twice = joined([rows, rows])
    said = np.arange(60) < 30
    found = select(
        reviewed(twice, suspicious=said), known(), replace(OPEN, duplicates=0.01)
    )  # fmt: skip
    assert found.kept.all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=12),
    st.sampled_from([0.1, 0.25, 0.4, 1.0]),
)
def test_no_client_has_more_than_its_share(sizes: list[int], share: float) -> None:
    """Whoever sent how many: of what is kept nobody holds more than the share, and a client with
    fewer rows than another's kept ones loses none."""
    rows = around((0, 0, 0), sum(sizes), suspicious=False, kind="clean")
    clients = np.repeat([f"c{n}" for n in range(len(sizes))], sizes)
    found = select(reviewed(rows, client=clients), known(), replace(OPEN, per_client=share))
    kept = [int(found.kept[clients == f"c{n}"].sum()) for n in range(len(sizes))]
    assert max(kept) <= share * sum(kept) + 1e-9
    assert all(k == n or k == max(kept) for k, n in zip(kept, sizes, strict=True))


def test_a_flood_of_one_day_is_cut() -> None:
    """A client's rows beyond the day's limit are dropped; on another day it may send more."""
    rows = around((0, 0, 0), 90, suspicious=False, kind="clean")
    day = np.where(np.arange(90) < 60, 20000, 20001).astype(np.int32)
    found = select(reviewed(rows, clients=1, day=day), known(), replace(OPEN, per_client_day=20))
    assert [int(found.kept[day == d].sum()) for d in (20000, 20001)] == [20, 20]


def test_a_planted_direction_is_an_outlier() -> None:
    """A few rows far out in one direction carry the spectral signature; the others stay."""
    planted = around((0, 80, 0), 6, suspicious=False, kind="planted")
    rows = joined([around((0, 0, 0), 120, suspicious=False, kind="clean"), planted])
    found = select(reviewed(rows), known(), replace(OPEN, outliers=4))
    assert (found.reason[-6:] == "outlier").all()
    assert found.kept[:-6].mean() > 0.95


@pytest.mark.parametrize("sees", [True, False], ids=["upstream", "alone"])
def test_flipped_labels_are_noise(sees: bool) -> None:
    """Of labels flipped in a tenth of an honest round most are found, few honest rows with them;
    with or without an upstream's answer, which is then not looked at."""
    new = honest(has_upstream=np.full(200, sees))
    if not sees:
        new.features[:, -1] = 1e6
    flipped = np.random.default_rng(5).random(200) < 0.1
    new = replace(new, suspicious=new.suspicious ^ flipped)
    found = select(new, known(), replace(OPEN, label_noise=True))
    assert (found.reason[flipped] == "label noise").mean() > 0.8
    assert found.kept[~flipped].mean() > 0.9


def test_a_client_does_not_vouch_for_itself() -> None:
    """Attacks that one client alone calls benign are noise, although they agree with each other
    and outnumber all others of their kind."""
    rows = joined(
        [
            around((0, 0, 0), 150, suspicious=False, kind="clean", seed=2),
            around((5, 5, 5), 20, suspicious=True, kind="PGD", seed=3),
            around((5, 5, 5), 60, suspicious=True, kind="PGD", seed=4),
        ]
    )
    own = np.arange(230) >= 170
    clients = np.where(own, "attacker", [f"c{n % 15}" for n in range(230)])
    new = reviewed(rows, suspicious=rows.suspicious & ~own, client=clients)
    found = select(new, known(), replace(OPEN, label_noise=True))
    assert found.kept[own].mean() < 0.1
    assert found.kept[~own].mean() > 0.9


def test_too_small_a_round_teaches_nothing() -> None:
    """Fewer rows than the least: all dropped."""
    found = select(honest(4), known(), replace(OPEN, fewest=20))
    assert found.counts()["too few"] == 8
    assert not found.kept.any()


def test_what_is_kept_does_not_depend_on_the_order() -> None:
    """Rows in another order are chosen alike: whoever comes first gains nothing."""
    new = honest(60, clients=3)
    shuffled = np.random.default_rng(0).permutation(len(new))
    found, again = select(new, known()), select(new.subset(shuffled), known())
    assert (found.reason[shuffled] == again.reason).all()


def test_an_empty_round_is_empty() -> None:
    """No rows, no selection, no error."""
    assert select(honest().subset(np.zeros(200, bool)), known()).counts()["kept"] == 0


def test_rows_of_another_graph_are_refused() -> None:
    """Columns that the pack's rows do not have: an error before anything is compared."""
    with pytest.raises(InputError, match="do not belong"):
        select(replace(honest(), columns=("first", "other", "upstream_odds")), known())


@pytest.mark.parametrize(
    "limit", [{"per_client": 0.0}, {"per_client": 1.5}, {"per_client_day": 0}, {"quorum": -1}]
)
def test_limits_out_of_range_are_refused(limit: dict[str, float]) -> None:
    """An impossible limit is named, not silently taken for another."""
    with pytest.raises(ConfigError, match=next(iter(limit))):
        Limits(**limit)  # type: ignore[arg-type]


def test_a_selection_describes_itself() -> None:
    """The manifest gets the limits and what they did."""
    said = described(select(honest(4), known(), OPEN), OPEN)
    assert (said["kept"], said["limits"]["per_client"]) == (8, 1)  # type: ignore[index]
