"""When reviewers agree."""

import itertools

import pytest

from guard.suspects.agreement import latest, settled
from guard.suspects.record import Label, Review

SAID: dict[str, Label] = {"a": "adversarial", "b": "benign", "u": "unsure"}


def reviews(said: str) -> list[Review]:
    """One reviewer per letter."""
    return [Review(f"r{n}", SAID[letter], float(n)) for n, letter in enumerate(said)]


@pytest.mark.parametrize(
    ("said", "required", "state", "label"),
    [
        ("", 1, "open", None),
        ("a", 1, "agreed", "adversarial"),
        ("b", 1, "agreed", "benign"),
        ("u", 1, "open", "unsure"),
        ("ua", 1, "agreed", "adversarial"),
        ("ab", 1, "disputed", None),
        ("abb", 1, "agreed", "benign"),
        ("a", 2, "open", None),
        ("u", 2, "open", None),
        ("uu", 2, "open", "unsure"),
        ("au", 2, "open", None),
        ("aa", 2, "agreed", "adversarial"),
        ("ab", 2, "disputed", None),
        ("aba", 2, "agreed", "adversarial"),
        ("aabb", 2, "disputed", None),
        ("aab", 3, "disputed", None),
        ("aaba", 3, "agreed", "adversarial"),
    ],
)
def test_what_reviews_come_to(said: str, required: int, state: str, label: str | None) -> None:
    """One rule: enough of one kind, and more than of the other."""
    assert settled(reviews(said), required) == (state, label)


def test_the_order_of_reviews_does_not_matter() -> None:
    """Four reviewers in any order come to the same."""
    for said in itertools.combinations_with_replacement("abu", 4):
        found = {settled(reviews("".join(order)), 2) for order in itertools.permutations(said)}
        assert len(found) == 1


def test_the_last_word_of_each_counts() -> None:
    """A reviewer who changes their mind has one voice; a client of the same name another."""
    one = Review("ann", "benign", 1.0)
    client = Review("ann", "adversarial", 2.0, "client")
    again = Review("ann", "adversarial", 3.0)
    assert latest([one, client, again]) == (client, again)
    assert settled(latest([one, client, again]), 2) == ("open", None)
