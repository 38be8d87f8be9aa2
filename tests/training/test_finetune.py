"""Going on learning: what is new is learned, what is old stays, and nothing goes further than it
may, whatever the new rows are."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import RDPAccountant
from torch.nn import functional as F  # noqa: N812

from guard.defenses.detector import Detector
from guard.errors import ConfigError, InputError, NumericError
from guard.rows import Rows, joined
from guard.training.finetune import HEAVIEST, finetune, row_weights
from guard.training.heads import Heads
from guard.training.private import Private
from guard.training.reviewed import ADVERSARIAL, ALONE
from tests.training.evidence import COLUMNS, around, known


class Signals:
    """All that a detector asks of a defence before it scores."""

    name, columns = "signals", COLUMNS[:-1]


@functools.cache
def parent() -> Detector:
    """A detector of the known rows."""
    torch.manual_seed(0)
    detector = Detector([Signals()])  # type: ignore[list-item]
    features, wanted = torch.from_numpy(known().features), torch.from_numpy(known().suspicious)
    detector.standardize(features)
    heads, truth = Heads(detector), wanted.float()[:, None].expand(-1, 2)
    optimizer = torch.optim.Adam(heads.parameters(), 0.02)
    for _ in range(60):
        loss = F.binary_cross_entropy_with_logits(heads(features), truth)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return detector.eval().requires_grad_(False)


def family(count: int = 80, seed: int = 3) -> Rows:
    """Attacks on the wrong side of all that the known rows tell."""
    return around((6, -7, -1), count, suspicious=True, kind="new", seed=seed)


def flagged(detector: Detector, rows: Rows) -> tuple[float, float]:
    """Shares that the heads `alone` and `upstream` flag, at 5% of the clean rows."""
    features, clean = torch.from_numpy(rows.features), torch.from_numpy(known().features[:400])
    heads = (detector.alone, slice(0, 2)), (detector.upstream, slice(None))
    found = [
        (head(features[:, some]) > head(clean[:, some]).quantile(0.95)).float().mean()
        for head, some in heads
    ]
    return float(found[0]), float(found[1])


def test_a_new_family_is_learned_and_the_known_ones_are_kept() -> None:
    """The parent misses the family; its child sees nearly all of other pictures of it, and of what
    the parent knew no less than before."""
    before, new = parent(), family()
    child, report = finetune(before, known(), new, np.ones(len(new), bool))
    fresh = family(seed=9)
    assert max(flagged(before, fresh)) < 0.4
    assert min(flagged(child, fresh)) > 0.9
    assert min(flagged(child, known().only("PGD"))) > 0.97
    assert (report.old, report.new, report.privacy) == (800, 80, None)


def test_the_parent_stays_what_it_was() -> None:
    """Training a child changes no number of the parent: it goes on serving."""
    before = parent()
    state = {name: value.clone() for name, value in before.state_dict().items()}
    finetune(before, known(), family(), np.ones(80, bool), steps=5)
    assert all(torch.equal(value, state[name]) for name, value in before.state_dict().items())


def test_the_same_seed_gives_the_same_child() -> None:
    """A round can be repeated bit for bit, and another seed is another child."""
    first, again, other = (
        finetune(parent(), known(), family(), np.ones(80, bool), steps=20, seed=seed)[0]
        for seed in (4, 4, 5)
    )
    theirs = again.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in first.state_dict().items())
    assert not torch.equal(first.upstream.first.weight, other.upstream.first.weight)


@settings(max_examples=6, deadline=None)
@given(st.floats(0.01, 0.6), st.integers(1, 400), st.booleans())
def test_no_round_moves_a_head_further_than_its_leash(
    cap: float, count: int, private: bool
) -> None:
    """However many rows, and however wrong (far out, known attacks as benign), each head ends
    within the cap, and the report says where."""
    before = parent()
    wrong = around((40, 40, 40), count, suspicious=False, kind="poison")
    noise = Private(0.5) if private else None
    child, report = finetune(
        before, known(), wrong, np.ones(count, bool), drift=cap, steps=20, private=noise
    )
    for name in ("alone", "upstream"):
        mine, theirs = (
            torch.cat([p.flatten() for p in getattr(d, name).parameters()]) for d in (before, child)
        )
        moved = float((mine - theirs).norm() / mine.norm())
        assert moved <= cap * (1 + 1e-4)
        assert moved == pytest.approx(report.drift[name], abs=1e-5)


@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 5000), st.floats(0.01, 0.9))
def test_new_rows_never_outweigh_their_share(
    benign: int, attacks: int, new: int, share: float
) -> None:
    """Each class weighs a half; within each the new rows carry at most their share, and one of them
    no more than HEAVIEST old ones."""
    suspicious = np.repeat([False, True, False], [benign, attacks, new])
    fresh = np.arange(len(suspicious)) >= benign + attacks
    weight = row_weights(suspicious, fresh, share)
    assert weight.sum() == pytest.approx(1)
    assert weight[suspicious].sum() == pytest.approx(0.5)
    assert weight[fresh].sum() <= 0.5 * share + 1e-9
    if new:
        old = weight[:benign].max()
        assert weight[fresh].max() <= HEAVIEST * old * (1 + 1e-9)


def test_rows_without_an_upstream_teach_the_other_head_alone() -> None:
    """Their last number means nothing: the head that reads it ends where it would without them
    knowing it, bit for bit, whatever it is; once they are replayed, too."""
    new, none = family(), np.zeros(80, bool)
    garbage = replace(new, features=new.features.copy())
    garbage.features[:, -1] = 1e6
    for rows in (new, garbage):
        old = joined([known(), replace(rows, kinds=(ADVERSARIAL + ALONE,))])
        child, _ = finetune(parent(), old, rows, none, steps=30)
        state = [value.clone() for value in child.upstream.state_dict().values()]
        if rows is new:
            expected = state
    assert all(torch.equal(a, b) for a, b in zip(state, expected, strict=True))


def test_a_private_round_spends_what_opacus_says_and_learns() -> None:
    """The report's (epsilon, delta) is that of Opacus' RDP accountant for these draws, and the
    family is still learned."""
    rows = family()
    child, report = finetune(
        parent(), known(), rows, np.ones(80, bool), private=Private(0.5, delta=1e-4)
    )
    spent = report.privacy
    assert spent is not None
    theirs = RDPAccountant()
    theirs.history = [(0.5, min(512 / 880, 1), report.steps)]
    assert spent.epsilon == pytest.approx(theirs.get_epsilon(1e-4), rel=1e-9)
    assert flagged(child, family(seed=9))[1] > 0.6


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"share": 0.0}, "share"), ({"share": 1.0}, "share"), ({"drift": 0.0}, "drift")],
)
def test_limits_out_of_range_are_refused(setting: dict[str, float], message: str) -> None:
    """A share or a leash that means nothing is named."""
    with pytest.raises(ConfigError, match=message):
        finetune(parent(), known(), family(), np.ones(80, bool), **setting)  # type: ignore[arg-type]


def test_rows_that_do_not_fit_are_refused() -> None:
    """Marks for other rows, columns of another graph, nothing to replay: errors, not training."""
    with pytest.raises(InputError, match="marks"):
        finetune(parent(), known(), family(), np.ones(3, bool))
    other = replace(family(), columns=("first", "other", "upstream_odds"))
    with pytest.raises(InputError, match="graph"):
        finetune(parent(), known(), other, np.ones(80, bool))
    with pytest.raises(InputError, match="one class"):
        finetune(parent(), known().only("clean"), family(), np.ones(80, bool))


def test_weights_that_blow_up_are_never_a_detector() -> None:
    """Rows so far out that training diverges end in an error that says so."""
    far = replace(family(), features=np.full((80, 3), 3e38, np.float32))
    with pytest.raises(NumericError, match="finite"):
        finetune(parent(), known(), far, np.ones(80, bool), steps=5)
