"""What every store says of its suspects without opening one: rows, pages, counts, likeness."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from guard.errors import InputError
from guard.suspects.record import Filter, Review, Row, Suspect
from guard.suspects.store import Order
from guard.suspects.suspect_store import SuspectStore
from guard.verdict import Decision
from tests.suspects.samples import picture, suspect

MEANT = (
    (Filter(), lambda _row: True),
    (Filter(model="m1"), lambda row: row.model == "m1"),
    (Filter(pack="p1"), lambda row: row.pack == "p1"),
    (Filter(tenant="t2"), lambda row: row.tenant == "t2"),
    (Filter(tenant=""), lambda row: row.tenant == ""),
    (Filter(predicted=3), lambda row: row.predicted == 3),
    (Filter(decision=Decision.BLOCK), lambda row: row.decision is Decision.BLOCK),
    (Filter(defense="noise"), lambda row: "noise" in row.alarms),
    (Filter(defense="nois"), lambda _row: False),
    (Filter(defense='noise","detector'), lambda _row: False),
    (Filter(defense="%"), lambda _row: False),
    (Filter(sampled=True), lambda row: row.sampled),
    (Filter(sampled=False), lambda row: not row.sampled),
    (Filter(state="agreed"), lambda row: row.state == "agreed"),
    (Filter(label="benign"), lambda row: row.label == "benign"),
    (Filter(taken_from=1_700_000_010.0), lambda row: row.taken >= 1_700_000_010),
    (Filter(taken_before=1_700_000_010.0), lambda row: row.taken < 1_700_000_010),
    (Filter(p_value_at_most=0.004), lambda row: row.p_value <= 0.004),
    (Filter(ids=[]), lambda _row: False),
    (Filter(model="m1", sampled=True, tenant="t0"), lambda _row: False),
    (Filter(model="m0' OR 1=1 --"), lambda _row: False),
)  # fmt: skip


def varied(store: SuspectStore, seed: int) -> Suspect:
    """Suspects that differ in all that a filter asks for."""
    one = suspect(
        store,
        seed,
        who=f"client {seed % 3}",
        model=f"m{seed % 2}",
        pack=f"p{seed % 5}",
        tenant=("", "t1", "t2")[seed % 3],
        sampled=seed % 4 == 0,
    )
    p_values = {"squeezing": 0.5, "noise": 0.001 if seed % 5 == 0 else 0.5, "detector": 0.005}
    verdict = dataclasses.replace(
        one.verdict,
        decision=Decision.BLOCK if seed % 3 == 0 else Decision.FLAG,
        p_value=math.nan if seed == 7 else seed % 10 / 1000,
        p_values=p_values,
    )
    return dataclasses.replace(one, verdict=verdict)


def filled(store: SuspectStore) -> list[Row]:
    """Thirty of them, two labelled."""
    given = [varied(store, seed) for seed in range(30)]
    store.put(given)
    store.review([given[3].id, given[9].id], Review("ann", "benign", 5.0))
    return [store.row(one.id) for one in given]


def walked(store: SuspectStore, wanted: Filter, order: Order, limit: int) -> list[Row]:
    """All pages after another."""
    rows: list[Row] = []
    after = None
    while True:
        page = store.rows(wanted, order=order, after=after, limit=limit)
        assert len(page.rows) <= limit
        rows += page.rows
        if (after := page.after) is None:
            return rows


def test_a_row_says_what_the_suspect_does(store: SuspectStore) -> None:
    """Each field is the suspect's own; nothing of the picture is among them."""
    one = varied(store, 5)
    store.put([one])
    row = store.row(one.id)
    for name in ("id", "taken", "model", "pack", "tenant", "client", "sampled", "alarms"):
        assert getattr(row, name) == getattr(one, name), name
    assert row.decision is one.verdict.decision
    assert row.p_value == one.verdict.p_value
    assert row.predicted == one.verdict.label
    assert (row.seen, row.state, row.label, row.reviews) == (1, "open", None, ())
    assert row.bytes > one.image.size


def test_filters_orders_and_pages_agree_with_plain_python(store: SuspectStore) -> None:
    """Every filter in every order, in pages of every size, and its counts."""
    rows = filled(store)
    orders: dict[Order, object] = {
        "newest": lambda row: -row.taken,
        "oldest": lambda row: row.taken,
        "most_suspicious": lambda row: 9 if math.isnan(row.p_value) else row.p_value,
    }
    client = Filter(client=rows[1].client)
    for wanted, means in (*MEANT, (client, lambda row: row.client == rows[1].client)):
        expected = {row.id for row in rows if means(row)}
        for order, key in orders.items():
            found = walked(store, wanted, order, 4)
            assert {row.id for row in found} == expected, (wanted, order)
            assert len(found) == len(expected)
            keys = [key(row) for row in found]  # type: ignore[operator]
            assert keys == sorted(keys)
        counts = store.counts(wanted)
        meant = [row for row in rows if means(row)]
        assert (counts.total, counts.bytes) == (len(meant), sum(row.bytes for row in meant))
        for state, count in counts.by_state.items():
            assert count == sum(row.state == state for row in meant)
        for label, count in counts.by_label.items():
            assert count == sum(row.label == label for row in meant)


def test_pages_stay_whole_while_suspects_come_and_go(store: SuspectStore) -> None:
    """What is put or erased between two pages neither repeats nor hides another row."""
    rows = filled(store)
    first = store.rows(order="newest", limit=10)
    store.put([varied(store, 100)])
    store.erase(Filter(ids=[first.rows[-1].id, rows[0].id]))
    rest = store.rows(order="newest", after=first.after, limit=100).rows
    assert [row.id for row in rest] == [row.id for row in rows[19:0:-1]]


def test_the_last_page_says_that_it_is(store: SuspectStore) -> None:
    """A page that ends with the last row has nothing after it; one row fewer has."""
    rows = filled(store)
    assert store.rows(limit=len(rows)).after is None
    assert store.rows(limit=len(rows) - 1).after is not None
    assert store.rows(Filter(ids=[]), limit=1).after is None


def test_a_number_that_is_none_stays_none(store: SuspectStore) -> None:
    """A p-value that is not a number comes back so, and is not below any bound."""
    one = varied(store, 7)
    store.put([one])
    assert math.isnan(store.row(one.id).p_value)
    assert math.isnan(store.get(one.id).verdict.p_value)
    assert store.counts(Filter(p_value_at_most=1.0)).total == 0


@pytest.mark.parametrize(
    "after", ["", "x", "nan.1", "inf.1", "0x1p+1.-1", "0x1p+1.99999999999999999999", "é.\0"]
)
def test_a_page_begins_only_where_one_ended(store: SuspectStore, after: str) -> None:
    """A made-up `after` is the caller's mistake, and says so."""
    with pytest.raises(InputError, match="after"):
        store.rows(after=after)


def test_too_many_ids_are_refused(store: SuspectStore) -> None:
    """A filter cannot be made so long that the database gives up."""
    with pytest.raises(InputError, match="at most"):
        store.rows(Filter(ids=["x"] * 10_001))
    assert store.rows(Filter(ids=["x"] * 10_000)).rows == ()


def test_pictures_that_look_alike_are_found(store: SuspectStore) -> None:
    """A picture finds its noisy copies, most alike first, of one tenant where asked; no other."""
    base = picture(1, (3, 4, 4)).repeat(8, 1).repeat(8, 2)
    rng = np.random.default_rng(0)
    given = []
    for seed, strength in enumerate((0, 0.01, 0.02, 0.03)):
        noisy = np.clip(base + rng.normal(0, strength, base.shape), 0, 1).astype(np.float32)
        given.append(suspect(store, seed, image=noisy, tenant="ab"[seed % 2]))
    other = suspect(store, 9, image=picture(2, (3, 32, 32)))
    store.put([*given, other])
    found = [row.id for row in store.similar(given[0].id)]
    assert set(found) == {one.id for one in given[1:]}
    shared = {one.id: len(set(one.near) & set(given[0].near)) for one in given}
    assert [shared[one] for one in found] == sorted((shared[one] for one in found), reverse=True)
    assert [row.id for row in store.similar(given[0].id, limit=1)] == found[:1]
    assert [row.id for row in store.similar(given[0].id, tenant="a")] == [given[2].id]
    assert store.similar(other.id) == []


def test_a_second_drawing_counts_for_the_sample(store: SuspectStore, place: Path) -> None:
    """A suspect that is drawn at random when it comes again is part of the sample from then on."""
    one = suspect(store, 1)
    store.put([one])
    store.put([dataclasses.replace(one, sampled=True)])
    store.put([one])
    assert store.row(one.id).sampled
    assert store.get(one.id).sampled
