"""A rotation of many suspects under load, and an erasure drill at the gateway's own pace.

    python -m tests.bench.rotation [--count 10000] [--rotations 5] [--readers 3] [--drill]

Readers open suspects at random and a writer keeps new ones while the keys are rotated, again and
again; every read is compared bit for bit. `--drill` backs the store up, erases a client, leaves the
rotation to the upkeep of a gateway with default settings, and says after how many seconds the
erased suspects could no longer be had from the backup, nor anything else of it.
"""

import argparse
import contextlib
import os
import random
import tempfile
import threading
import time
from pathlib import Path

from guard.errors import GuardError, StoreError
from guard.suspects.keeper import Keeper
from guard.suspects.record import Filter, Suspect
from guard.suspects.suspect_store import SuspectStore
from tests.suspects.samples import same, suspect
from tests.suspects.stores import embedded
from tests.suspects.test_backup import restored, saved

BATCH = 250


class Load:
    """Readers and a writer until stopped; what they read, kept and saw fail."""

    def __init__(self, store: SuspectStore, given: list[Suspect], readers: int) -> None:
        self._store, self._given = store, given
        self._stop = threading.Event()
        self.reads = self.puts = 0
        self.failed: list[str] = []
        self.slowest = 0.0
        works = [self._write, *[self._read] * readers]
        self._threads = [threading.Thread(target=self._run, args=(work,)) for work in works]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Wait until all have ended."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, work: object) -> None:
        while not self._stop.is_set():
            try:
                work()  # type: ignore[operator]
            except Exception as error:
                self.failed.append(repr(error))

    def _read(self) -> None:
        one = random.choice(self._given)
        begun = time.perf_counter()
        right = same(self._store.get(one.id), one)
        self.slowest = max(self.slowest, time.perf_counter() - begun)
        self.reads += 1
        if not right:
            self.failed.append(f"{one.id} is not what was kept")

    def _write(self) -> None:
        first = 1_000_000 + self.puts
        self._store.put([suspect(self._store, first + n) for n in range(8)])
        self.puts += 8


def under_load(store: SuspectStore, given: list[Suspect], rotations: int, readers: int) -> int:
    """Rotate so often while others read and write; how many reads or writes failed."""
    load = Load(store, given, readers)
    for _ in range(rotations):
        begun = time.perf_counter()
        count = store.rotate()
        print(f"rotated {count} keys in {time.perf_counter() - begun:.2f} s", flush=True)
    load.stop()
    print(
        f"{load.reads} reads ({1e3 * load.slowest:.0f} ms the slowest) and {load.puts} suspects"
        f" kept meanwhile: {len(load.failed)} errors {load.failed[:3]}"
    )
    unreadable = list(store.verify())
    print(f"afterwards: {len(unreadable)} of {store.counts().total} unreadable")
    return len(load.failed) + len(unreadable)


def had(place: Path, backup: Path, given: list[Suspect], name: str) -> int:
    """How many of these can be had from a backup with the keys as they are now."""
    try:
        store = restored(place, backup, name)
    except StoreError as error:
        print(f"the backup does not open: {error}")
        return 0
    found = 0
    for one in given:
        with contextlib.suppress(GuardError):
            found += same(store.get(one.id), one)
    store.close()
    return found


def drill(store: SuspectStore, place: Path, given: list[Suspect]) -> int:
    """Erase, and see when a backup of before opens nothing; how many could be had after it."""
    backup = saved(store, place, "backup")
    keeper = Keeper(store, keep_seconds=1e12, quota_bytes=1 << 40, rotate=True)
    keeper.start()
    time.sleep(2)  # in between two looks, as in life
    gone = given[:100]
    begun = time.monotonic()
    erased = store.erase(Filter(ids=[one.id for one in gone]))
    print(f"{erased} erased; {had(place, backup, gone, 'then')} can be had from a backup of before")
    while store.erased_since() is not None:
        time.sleep(0.1)
    took = time.monotonic() - begun
    keeper.close()
    left = had(place, backup, gone, "now")
    print(f"{left} can be had {took:.1f} s after the erasure; {store.counts().total} are kept")
    return left + (took > 60)


def main() -> None:
    """The figures; exit status 1 where anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--rotations", type=int, default=5)
    parser.add_argument("--readers", type=int, default=3)
    parser.add_argument("--drill", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        store = embedded(place)
        given = [suspect(store, seed) for seed in range(options.count)]
        for start in range(0, options.count, BATCH):
            store.put(given[start : start + BATCH])
        print(f"{options.count} suspects, {os.cpu_count()} cores", flush=True)
        failures = under_load(store, given, options.rotations, options.readers)
        if options.drill:
            failures += drill(store, place, given)
        store.close()
    raise SystemExit(min(failures, 1))


if __name__ == "__main__":
    main()
