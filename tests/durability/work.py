"""Whoever works on a store until it is ended, and what is known of its work afterwards.

A worker says a line before and after everything it does: `put 1 2 3`, then `ok`. What was said to
be `ok` must be so after a crash; what was begun may be.
"""

import os
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from guard.errors import StoreError, UnknownSuspectError
from guard.suspects.record import Filter, Label, Review, Row
from guard.suspects.store import Store
from tests.durability.making import same, suspect, suspect_id

Say = Callable[[str], object]
LABELS: tuple[Label, ...] = ("adversarial", "benign", "unsure")
MAX_BATCH = 8


def work(store: Store, first: int, say: Say, chance: random.Random) -> None:
    """Put, and now and then label, erase and rotate, until ended; new numbers begin at `first`."""
    here: list[int] = []
    while True:
        draw = chance.random()
        if draw < 0.8 or not here:
            numbers = list(range(first, first + chance.randint(1, MAX_BATCH)))
            first = numbers[-1] + 1
            if _done(say, f"put {_text(numbers)}", lambda n=numbers: _put(store, n)):
                here += numbers
        elif draw < 0.9:
            number, label = chance.choice(here), chance.choice(LABELS)
            _done(say, f"label {number} {label}", lambda n=number, w=label: _label(store, n, w))
        elif draw < 0.97:
            gone = chance.sample(here, min(len(here), 3))
            here = [number for number in here if number not in gone]
            ids = [suspect_id(number) for number in gone]
            _done(say, f"erase {_text(gone)}", lambda i=ids: store.erase(Filter(ids=i)))
        else:
            _done(say, "rotate", store.rotate)


def _done(say: Say, what: str, act: Callable[[], object]) -> bool:
    say(what)
    try:
        act()
    except (StoreError, UnknownSuspectError) as error:
        say(f"failed {type(error).__name__}")
        return False
    say("ok")
    return True


def _text(numbers: Iterable[int]) -> str:
    return " ".join(map(str, numbers))


def _put(store: Store, numbers: Sequence[int]) -> None:
    store.put([suspect(number) for number in numbers])


def _label(store: Store, number: int, label: Label) -> None:
    store.review([suspect_id(number)], Review("somebody", label, 1_700_000_000.0))


def telling(descriptor: int) -> Say:
    """Says lines into a pipe; what was said stays said when the process is killed."""
    return lambda line: os.write(descriptor, f"{line}\n".encode())


@dataclass
class Ledger:
    """What is known of a store from what its workers said."""

    kept: set[int] = field(default_factory=set)  # must be there
    open: set[int] = field(default_factory=set)  # may be there, or not
    erased: set[int] = field(default_factory=set)  # must not be there
    labels: dict[int, set[str | None]] = field(default_factory=dict)  # those that it may have
    acknowledged: int = 0
    failed: int = 0
    next: int = 0

    def read(self, text: str) -> None:
        """A worker's lines, up to its end."""
        lines = text.split("\n")[:-1]
        for line, answer in zip(lines, [*lines[1:], ""], strict=False):
            if line != "ok" and not line.startswith("failed"):
                self._learn(line.split(), answer)

    def _learn(self, words: Sequence[str], answer: str) -> None:
        what, sure = words[0], answer == "ok"
        self.failed += answer.startswith("failed")
        if what == "label":
            known = self.labels.setdefault(int(words[1]), {None})
            if sure:
                known.clear()
            known.add(words[2])
            self.acknowledged += sure
            return
        numbers = {int(word) for word in words[1:]}
        self.kept -= numbers
        if what == "put":
            self.next = max(self.next, *(number + 1 for number in numbers))
        if not sure:
            self.open |= numbers
        elif what == "put":
            self.kept |= numbers
            self.acknowledged += len(numbers)
        elif what == "erase":
            self.open -= numbers
            self.erased |= numbers
            self.acknowledged += len(numbers)

    def audit(self, store: Store, read: Iterable[int] | None = None) -> list[str]:
        """What is wrong with a store, opened anew; settles what was open.

        read: the suspects whose contents are compared; None: all.
        """
        there = rows(store)
        known = {suspect_id(number): number for number in self.kept | self.open}
        present = {known[id_] for id_ in there if id_ in known}
        wrong = [f"lost: {number}" for number in sorted(self.kept - present)]
        wrong += [f"nobody's: {id_}" for id_ in there if id_ not in known]
        self.kept, self.open = present, set()
        for number in sorted(present if read is None else present & set(read)):
            wrong += self._compare(store, there[suspect_id(number)], number)
        return wrong

    def _compare(self, store: Store, row: Row, number: int) -> list[str]:
        found = []
        try:
            if not same(store.get(row.id), suspect(number)):
                found.append(f"altered: {number}")
        except (StoreError, UnknownSuspectError) as error:
            found.append(f"unreadable: {number}: {error}")
        allowed = self.labels.get(number, {None})
        if row.label not in allowed:
            found.append(f"label of {number}: {row.label}, not {allowed}")
        self.labels[number] = {row.label}
        return found


def rows(store: Store) -> dict[str, Row]:
    """Every row, page by page."""
    found: dict[str, Row] = {}
    after: str | None = None
    while True:
        page = store.rows(order="oldest", after=after, limit=1000)
        found |= {row.id: row for row in page.rows}
        if page.after is None:
            return found
        after = page.after
