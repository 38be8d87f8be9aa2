"""Sessions and attempts, on a clock of their own."""

from guard.console.sessions import PER_PERSON, Attempts, Sessions
from guard.gateway.identity import ANONYMOUS, Identity


class Clock:
    """Time that stands still until it is told to go on."""

    now = 1000.0

    def __call__(self) -> float:
        """Now."""
        return self.now


def someone() -> Identity | None:
    """Whoever is meant, alive."""
    return ANONYMOUS


def test_a_session_is_found_by_its_token_alone() -> None:
    """Another token finds nothing, and the table holds no token."""
    held = Sessions(lasts=100, idle=10, clock=Clock())
    token = held.begin("ada", someone)
    assert held.find(token)
    assert held.find(token + "x") is None
    assert held.find("") is None
    assert token not in str(held._held)


def test_a_session_ends_when_idle_and_when_old() -> None:
    """Clicks keep it alive, but not for ever."""
    clock = Clock()
    held = Sessions(lasts=100, idle=10, clock=clock)
    token = held.begin("ada", someone)
    for _ in range(11):
        clock.now += 9
        assert held.find(token)
    clock.now += 9  # 108 seconds old
    assert held.find(token) is None
    token = held.begin("ada", someone)
    clock.now += 11
    assert held.find(token) is None


def test_whoever_may_no_more_is_out_at_once() -> None:
    """A session asks at each use whether its person still may."""
    held, may = Sessions(lasts=100, idle=10, clock=Clock()), [ANONYMOUS]
    token = held.begin("ada", lambda: may[0] if may else None)
    assert held.find(token)
    may.clear()
    assert held.find(token) is None
    may.append(ANONYMOUS)
    assert held.find(token) is None


def test_a_person_has_a_few_sessions_at_once() -> None:
    """The oldest goes; nobody else's does."""
    held = Sessions(lasts=100, idle=10, clock=Clock())
    other = held.begin("ben", someone)
    tokens = [held.begin("ada", someone) for _ in range(PER_PERSON + 2)]
    assert [held.find(token) is not None for token in tokens] == [False] * 2 + [True] * PER_PERSON
    assert held.find(other)


def test_wrong_attempts_are_waited_out() -> None:
    """After so many in a while one waits, and being right forgives."""
    clock = Clock()
    gate = Attempts(allowed=3, seconds=60, clock=clock)
    for _ in range(3):
        assert gate.wait("ada") == 0
        gate.failed("ada")
        clock.now += 1
    assert gate.wait("ada") == 57
    assert gate.wait("ben") == 0
    clock.now += 57
    assert gate.wait("ada") == 0
    gate.failed("ada")
    gate.good("ada")
    assert gate.wait("ada") == 0
