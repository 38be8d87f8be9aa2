"""What people say of suspects, in every store: agreement, undoing, claims."""

from threading import Barrier, Thread

import pytest

from guard.errors import UnknownSuspectError
from guard.suspects.record import Filter, Label, Review
from guard.suspects.suspect_store import SuspectStore
from tests.suspects.samples import suspect


def kept(store: SuspectStore, count: int) -> list[str]:
    """The ids of so many new suspects, the newest first."""
    given = [suspect(store, seed) for seed in range(count)]
    store.put(given)
    return [one.id for one in reversed(given)]


def say(store: SuspectStore, who: str, label: Label, ids: list[str], required: int = 1) -> None:
    """A review now."""
    store.review(ids, Review(who, label, 1.0), required=required)


def test_one_label_settles_where_one_is_enough(store: SuspectStore) -> None:
    """A bulk label settles each, in the order asked for, and nothing else."""
    a, b, c = kept(store, 3)
    rows = store.review([c, a], Review("ann", "adversarial", 4.0))
    assert [(row.id, row.state, row.label) for row in rows] == [
        (c, "agreed", "adversarial"),
        (a, "agreed", "adversarial"),
    ]
    assert rows[0].reviews == (Review("ann", "adversarial", 4.0),)
    assert store.row(b).state == "open"


def test_two_reviewers_must_agree_where_two_are_required(store: SuspectStore) -> None:
    """One is not enough, twice the same is not two, two who differ dispute, a third decides."""
    (one,) = kept(store, 1)
    say(store, "ann", "benign", [one], 2)
    say(store, "ann", "benign", [one], 2)
    assert store.row(one).state == "open"
    say(store, "bob", "adversarial", [one], 2)
    assert store.row(one).state == "disputed"
    say(store, "cy", "adversarial", [one], 2)
    row = store.row(one)
    assert (row.state, row.label) == ("agreed", "adversarial")
    assert [review.reviewer for review in row.reviews] == ["ann", "bob", "cy"]


def test_a_client_s_word_is_shown_and_counts_for_nothing(store: SuspectStore) -> None:
    """Feedback leaves the state as it is; only a client's last word is kept."""
    (one,) = kept(store, 1)
    for at in range(5):
        store.review([one], Review("client", "benign", float(at), "client"))
    row = store.row(one)
    assert (row.state, row.label) == ("open", None)
    assert row.reviews == (Review("client", "benign", 4.0, "client"),)


def test_undo_takes_back_one_step_at_a_time(store: SuspectStore) -> None:
    """A bulk label is undone as one, to what the same reviewer said before; others' words stay."""
    a, b = kept(store, 2)
    say(store, "ann", "benign", [a])
    say(store, "bob", "benign", [b])
    say(store, "ann", "adversarial", [a, b])
    assert store.row(b).state == "disputed"
    assert sorted(row.id for row in store.undo("ann")) == sorted([a, b])
    assert [store.row(one).label for one in (a, b)] == ["benign", "benign"]
    assert [row.id for row in store.undo("ann")] == [a]
    assert store.row(a).state == "open"
    assert store.undo("ann") == []
    assert store.row(b).label == "benign"


def test_undo_never_takes_back_a_client_s_word(store: SuspectStore) -> None:
    """Whoever is called like a client undoes nothing of the client's."""
    (one,) = kept(store, 1)
    store.review([one], Review("x", "benign", 1.0, "client"))
    assert store.undo("x") == []
    assert len(store.row(one).reviews) == 1


def test_a_label_of_an_unknown_suspect_labels_none(store: SuspectStore) -> None:
    """A bulk label is all or nothing, and names who is missing."""
    (one,) = kept(store, 1)
    with pytest.raises(UnknownSuspectError, match="nobody"):
        say(store, "ann", "benign", [one, "nobody"])
    assert store.row(one).reviews == ()


def test_a_claim_is_one_reviewer_s_alone(store: SuspectStore) -> None:
    """Nobody is given what another holds; one's own come first; the newest come before others."""
    ids = kept(store, 4)
    assert [row.id for row in store.claim("ann", Filter(), limit=2)] == ids[:2]
    assert [row.id for row in store.claim("bob", Filter(), limit=9)] == ids[2:]
    assert [row.id for row in store.claim("ann", Filter(), limit=9)] == ids[:2]
    assert store.claim("cy", Filter(), limit=9) == []


def test_a_claim_ends(store: SuspectStore) -> None:
    """After its seconds, or once labelled, a suspect is anybody's again."""
    a, b = kept(store, 2)
    store.claim("ann", Filter(), limit=2, seconds=-1.0)
    assert len(store.claim("bob", Filter(), limit=2)) == 2
    say(store, "bob", "unsure", [a])
    assert [row.id for row in store.claim("ann", Filter(), limit=2)] == [a]
    assert [row.id for row in store.claim("bob", Filter(), limit=2)] == [b]


def test_a_claim_is_of_what_is_wanted_and_open(store: SuspectStore) -> None:
    """Settled ones, other filters' and those that the reviewer labelled are not given."""
    a, b, c = kept(store, 3)
    say(store, "ann", "benign", [a], 2)
    say(store, "bob", "benign", [b], 1)
    assert [row.id for row in store.claim("ann", Filter())] == [c]
    assert store.claim("ann", Filter(model="none"), limit=9) == []
    say(store, "bob", "adversarial", [a], 2)
    assert store.claim("cy", Filter(ids=[a])) == []
    assert [row.id for row in store.claim("cy", Filter(state="disputed"))] == [a]


def test_claims_at_the_same_time_never_overlap(store: SuspectStore) -> None:
    """Eight reviewers at once are given different suspects, none twice, none left over."""
    ids = kept(store, 40)
    given: dict[int, list[str]] = {}
    barrier = Barrier(8)

    def ask(number: int) -> None:
        barrier.wait()
        given[number] = [row.id for row in store.claim(f"r{number}", Filter(), limit=5)]

    threads = [Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = [one for some in given.values() for one in some]
    assert sorted(together) == sorted(ids)


def test_labels_at_the_same_time_are_all_counted(store: SuspectStore) -> None:
    """Two who label the same suspects at once always end agreed, never lost in between."""
    ids = kept(store, 10)
    barrier = Barrier(2)

    def label(who: str) -> None:
        barrier.wait()
        for one in ids:
            say(store, who, "benign", [one], 2)

    threads = [Thread(target=label, args=(who,)) for who in ("ann", "bob")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.counts().by_state["agreed"] == 10
