"""Places shared out among callers."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from guard.gateway.shares import MOMENT, REGULAR, REMEMBERED, Shares

CALLERS = st.sampled_from("abcdef")


def _visit(shares: Shares, caller: str) -> None:
    """As often as it takes to be remembered."""
    for _ in range(REGULAR):
        assert shares.take(caller)
        shares.give(caller)


def test_a_single_caller_has_all_the_places() -> None:
    """Nobody else, nothing kept back: the whole limit, and not one more."""
    shares = Shares(8)
    assert [shares.take("a") for _ in range(9)] == [True] * 8 + [False]


def test_a_caller_who_was_here_before_finds_a_place_in_a_flood() -> None:
    """What a flood of many callers takes never includes the place of one who was seen lately."""
    shares = Shares(8)
    _visit(shares, "honest")
    for _ in range(10):
        for flood in ("x", "y", "z"):
            shares.take(flood)
    assert shares.take("honest")


def test_a_newcomer_finds_a_place_beside_two_who_are_greedy() -> None:
    """Two known callers cannot fill the house against a third that nobody knows yet."""
    shares = Shares(9)
    for _ in range(20):
        shares.take("x")
        shares.take("y")
    assert shares.take("new")


def test_a_caller_who_stays_away_is_forgotten() -> None:
    """Its share is kept for a moment, one place for a while, and then the others may have all."""
    now = 0.0
    shares = Shares(8, clock=lambda: now)
    _visit(shares, "b")
    assert [shares.take("a") for _ in range(5)] == [True] * 4 + [False]
    now = MOMENT + 0.1
    assert [shares.take("a") for _ in range(3)] == [True, True, False]
    now = REMEMBERED + 1
    assert [shares.take("a") for _ in range(3)] == [True, True, False]


@given(st.integers(1, 12), st.lists(st.tuples(CALLERS, st.booleans()), max_size=80))
def test_never_more_than_the_limit_and_never_less_than_a_share(
    limit: int, steps: list[tuple[str, bool]]
) -> None:
    """Whatever is taken and given back, who is below an equal share is refused only when all places
    are taken, and the places never exceed the limit."""
    shares = Shares(limit, clock=lambda: 0.0)
    held: Counter[str] = Counter()
    for caller, takes in steps:
        if takes:
            full = held.total() >= limit
            admitted = shares.take(caller)
            assert not (full and admitted)
            assert admitted or full or held[caller] >= limit // len("abcdef")
            held[caller] += admitted
        elif held[caller]:
            shares.give(caller)
            held[caller] -= 1
        assert shares.taken == held.total() <= limit


@given(st.integers(16, 40), st.lists(st.sampled_from("abc"), max_size=60))
def test_those_who_are_here_always_find_their_share(limit: int, greed: list[str]) -> None:
    """After any grabbing by three callers, a fourth who was here still gets an equal share."""
    shares = Shares(limit, clock=lambda: 0.0)
    for caller in "abcd":
        _visit(shares, caller)
    for caller in greed:
        shares.take(caller)
    assert all(shares.take("d") for _ in range(limit // 4))


def test_a_share_comes_free_as_a_burst_goes_on() -> None:
    """Each place that a greedy caller gives back goes to one below its share."""
    shares = Shares(8)
    while shares.take("greedy"):
        pass
    got = 0
    for _ in range(20):
        got += shares.take("late")
        shares.give("greedy")
        shares.take("greedy")
    assert got >= 3


def test_connections_that_come_and_go_are_no_crowd() -> None:
    """After a hundred short visits one caller has nearly all the places at once."""
    shares = Shares(64, clock=lambda: 0.0)
    for number in range(100):
        assert shares.take(str(number))
        shares.give(str(number))
    assert sum(shares.take("steady") for _ in range(64)) == 64


def test_regulars_in_any_number_do_not_keep_everything() -> None:
    """However many callers were here a moment ago, one who is busy has a fifth of the places."""
    shares = Shares(64, clock=lambda: 0.0)
    for number in range(100):
        _visit(shares, str(number))
    assert sum(shares.take("steady") for _ in range(64)) >= 15


def test_strangers_cannot_grow_what_is_remembered() -> None:
    """A thousand names take no more memory than the limit allows."""
    shares = Shares(4, clock=lambda: 0.0)
    for number in range(1000):
        _visit(shares, str(number))
    assert len(shares._idle) == 1
    assert len(shares._calls) == 8
