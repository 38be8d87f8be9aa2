"""Rounds of ending a worker at a random moment, and of looking at what it leaves behind."""

import contextlib
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from guard.errors import StoreError
from guard.suspects.suspect_store import SuspectStore
from tests.durability.mount import Mounted
from tests.durability.work import Ledger, rows, telling, work
from tests.suspects.stores import embedded

Open = Callable[[Path], SuspectStore]
ROUNDS_PER_STORE = 25  # then a new one, so that a round stays quick
SHORTEST, LONGEST = 0.001, 0.25  # seconds until the end


@dataclass
class Tally:
    """What rounds have shown."""

    rounds: int = 0
    acknowledged: int = 0  # puts, erasures and labels
    failed: int = 0  # what was refused with a StoreError
    swept: int = 0  # records without an index entry that the next start removed
    slowest: float = 0.0  # seconds until a mended store kept something again
    note: str = ""
    wrong: list[str] = field(default_factory=list)

    def line(self) -> str:
        """For people."""
        kinds = {what: sum(w.startswith(what) for w in self.wrong) for what in ("lost", "unread")}
        return (
            f"{self.rounds} rounds, {self.acknowledged} acknowledged, {self.failed} refused,"
            f" {self.swept} orphans swept; {kinds['lost']} lost, {kinds['unread']} unreadable,"
            f" {len(self.wrong)} wrong in all"
            f"{f'; {self.note}, kept again after {self.slowest:.1f} s' if self.note else ''}"
        )


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """A folder on a real disk."""
    with tempfile.TemporaryDirectory(prefix="guard-durability-") as folder:
        yield Path(folder)


def kill(rounds: int, seed: int, *, careless: bool = False, open_: Open = embedded) -> Tally:
    """Kill -9 in the midst of work; careless: says ok too early, which must be noticed."""
    tally, chance = Tally(), random.Random(seed)
    while tally.rounds < rounds:
        with place() as folder:
            ledger = Ledger()
            for _ in range(min(ROUNDS_PER_STORE, rounds - tally.rounds)):
                text = _worked(folder, ledger, chance, careless=careless, open_=open_)
                _judge(folder, ledger, text, tally, open_)
            tally.wrong += _final(folder, ledger, open_)
        tally.acknowledged += ledger.acknowledged
        tally.failed += ledger.failed
    return tally


def powercut(rounds: int, seed: int, *, lie: str = "", open_: Open = embedded) -> Tally:
    """Cut the power under a worker; lie: syncs of paths with this in them do nothing."""
    tally, chance = Tally(), random.Random(seed)
    while tally.rounds < rounds:
        with place() as folder:
            ledger, content = Ledger(), folder / "0"
            content.mkdir()
            for number in range(1, 1 + min(ROUNDS_PER_STORE, rounds - tally.rounds)):
                left = folder / str(number)
                with Mounted(folder / "mount", content) as mounted:
                    if lie:
                        mounted.say(f"lie {lie}")
                    text = _worked(
                        mounted.folder, ledger, chance, open_=open_,
                        ending=lambda m=mounted, to=left: m.cut(to, chance.getrandbits(32)),
                    )  # fmt: skip
                shutil.rmtree(content)
                content = left
                _judge(content, ledger, text, tally, open_)
            tally.wrong += _final(content, ledger, open_)
        tally.acknowledged += ledger.acknowledged
        tally.failed += ledger.failed
    return tally


def _worked(
    folder: Path,
    ledger: Ledger,
    chance: random.Random,
    *,
    open_: Open,
    careless: bool = False,
    ending: Callable[[], object] = lambda: None,
) -> str:
    """What a worker said until, at a random moment, its end came."""
    reading, writing = os.pipe()
    seed = chance.getrandbits(32)
    child = os.fork()
    if child == 0:
        os.close(reading)
        _be_worker(folder, ledger.next, seed, writing, careless=careless, open_=open_)
    os.close(writing)
    with os.fdopen(reading) as lines:
        heard = lines.readline()  # it is open, and begins
        # From the first moments to the midst of it, all orders of magnitude alike.
        time.sleep(SHORTEST * (LONGEST / SHORTEST) ** chance.random())
        ending()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        text = lines.read()
    return text if heard == "open\n" else f"{heard}{text}"


def _be_worker(
    folder: Path, first: int, seed: int, pipe: int, *, careless: bool, open_: Open
) -> None:
    """Never returns."""
    say = telling(pipe)
    try:
        say("open")
        store = open_(folder)
        if careless:
            store.put = lambda _suspects: None  # type: ignore[method-assign]
        work(store, first, say, random.Random(seed))
    except BaseException as error:  # whatever it is, the parent must hear of it
        with contextlib.suppress(OSError):
            say(f"# {type(error).__name__}: {error}".replace("\n", " "))
    finally:
        os._exit(1)


def _judge(folder: Path, ledger: Ledger, text: str, tally: Tally, open_: Open) -> None:
    """Open what is left, and compare it with what was said."""
    tally.rounds += 1
    before = ledger.next
    ledger.read("".join(line for line in text.splitlines(True) if line[0] != "#"))
    found = len(list(folder.glob("kept/records/*")))
    try:
        store = open_(folder)
    except StoreError as error:
        tally.wrong.append(f"unreadable: the store does not open: {error}")
        return
    with contextlib.closing(store):
        # All must be there; of their contents those of this round and some older ones are read.
        read = [*range(before, ledger.next), *random.Random(before).sample(range(before + 1), 1)]
        tally.wrong += ledger.audit(store, read)
        there = len(rows(store))
    left = len(list(folder.glob("kept/records/*")))
    tally.swept += max(0, found - left)
    if left != there:
        tally.wrong.append(f"orphans: {left} records, {there} known")


def _final(folder: Path, ledger: Ledger, open_: Open) -> list[str]:
    """Every content that is still there."""
    try:
        with contextlib.closing(open_(folder)) as store:
            return ledger.audit(store)
    except StoreError as error:
        return [f"unreadable: the store does not open: {error}"]
