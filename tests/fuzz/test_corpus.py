"""What fuzzing has found stays fixed: the kept inputs again, and a few new ones."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.engine import fuzz
from tests.fuzz.target import CORPUS, Finding, Target, demand, kept
from tests.fuzz.targets import TARGETS, make

FRESH = 200  # executions beyond the corpus
SMALL = 500_000  # bytes of the whole corpus


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Bad inputs fill the log."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_is_found_again(name: str) -> None:
    """No kept input, and none of a few hundred new ones, is a finding; some are accepted."""
    with make(name) as target:
        tally = fuzz(target, len(target.corpus) + FRESH, seed=1)
    assert not [text for _, text in tally.inputs.values()]
    assert tally.accepted


def test_the_corpus_is_small_and_has_a_target() -> None:
    """Every folder of the corpus is replayed, and all of it is a fraction of a megabyte."""
    assert {path.name for path in CORPUS.glob("*")} <= set(TARGETS)
    assert sum(path.stat().st_size for name in TARGETS for path in kept(name)) < SMALL


class Leaky(Target):
    """Breaks every promise, each for another input."""

    strict = True
    errors = (ValueError,)

    def seeds(self) -> list[bytes]:
        """One input a promise."""
        return [b"crash", b"wrong", b"path", b"address", b"lines", b"mine /etc/my/file", b"fine"]

    def run(self, data: bytes) -> str:
        """Do as the input says."""
        demand(data != b"wrong", "as asked")
        if data == b"crash":
            raise KeyError("as asked")
        texts = {
            b"path": "cannot open /var/lib/guard/model",
            b"address": "<_io.BytesIO object at 0x7f6284>",
            b"lines": "one\ntwo",
            b"mine /etc/my/file": "no tensor '/etc/my/file'",
        }
        if data in texts:
            raise ValueError(texts[data])
        return "fine"


def test_the_engine_sees_what_is_wrong() -> None:
    """A crash, a broken property and three leaks are found; a caller's own words are no leak."""
    with Leaky() as target:
        tally = fuzz(target, len(target.seeds()))
    assert tally.findings == {"crash": 1, "wrong": 1, "leak": 3}
    assert {data for data, _ in tally.inputs.values()} <= {b"", *target.seeds()}


def test_a_slow_input_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever takes longer than allowed, however often it is tried, hangs."""
    monkeypatch.setattr("tests.fuzz.engine.SLOW", -1.0)
    with Leaky() as target, pytest.raises(Finding, match="seconds"):
        from tests.fuzz.engine import judged

        judged(target, b"fine")


def test_memory_is_a_finding() -> None:
    """An input of a few bytes that costs 40 MiB is seen."""

    class Hungry(Leaky):
        def run(self, data: bytes) -> str:
            """Take memory and use it."""
            return str((bytearray(b"x" * (40 << 20)) + data)[-1:])

    Path("/proc/self/clear_refs").write_text("5")  # what other tests took at their peak is over
    with Hungry() as target:
        tally = fuzz(target, 1)
    assert tally.findings == {"memory": 1}
