"""How fast the embedded store of suspects is when it is full.

    python -m tests.bench.suspects [--count 100000] [--folder F]

Fills a store, then asks what people and the console ask, each several times: median and slowest.
"""

import argparse
import dataclasses
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from guard.suspects.record import Filter, Review, Suspect
from guard.suspects.suspect_store import SuspectStore
from guard.verdict import Decision
from tests.suspects.samples import suspect
from tests.suspects.stores import embedded

BATCH = 250
TIMES = 15


def made(store: SuspectStore, seed: int) -> Suspect:
    """A small suspect; models, tenants, classes, times and p-values as varied as in life."""
    rng = np.random.default_rng(seed)
    one = suspect(
        store,
        seed,
        who=f"client {seed % 500}",
        tenant=f"tenant {seed % 4}",
        model=("signs", "cifar")[seed % 2],
        sampled=seed % 10 == 0,
        image=(rng.integers(0, 256, (3, 8, 8)) / np.float32(255)).astype(np.float32),
    )
    p_value = float(rng.uniform(0, 0.01))
    decision = Decision.BLOCK if seed % 3 else Decision.FLAG
    defense = ("squeezing", "noise")[seed % 2] if seed % 7 == 0 else "detector"
    verdict = dataclasses.replace(
        one.verdict,
        decision=decision,
        p_value=p_value,
        label=seed % 43,
        p_values={"squeezing": 0.5, "noise": 0.5, "detector": p_value, defense: p_value},
    )
    return dataclasses.replace(one, verdict=verdict)


def fill(store: SuspectStore, count: int) -> None:
    """Put so many, and label a tenth."""
    begun = time.perf_counter()
    spent = 0.0
    for start in range(0, count, BATCH):
        batch = [made(store, seed) for seed in range(start, min(start + BATCH, count))]
        at = time.perf_counter()
        store.put(batch)
        spent += time.perf_counter() - at
        store.review([one.id for one in batch[::10]], Review("eve", "benign", time.time()))
    whole = time.perf_counter() - begun
    print(
        f"{count} put in {spent:.1f} s ({count / spent:.0f}/s in batches of {BATCH}), {whole:.0f} s"
    )


def timed(name: str, ask: Callable[[], object]) -> None:
    """Ask several times, and print how long it took."""
    took = []
    for _ in range(TIMES):
        begun = time.perf_counter()
        ask()
        took.append(1e3 * (time.perf_counter() - begun))
    took.sort()
    print(f"{name:58s} {took[len(took) // 2]:8.2f} ms {took[-1]:8.2f} ms", flush=True)


def questions(store: SuspectStore) -> None:
    """What is asked of a store all day."""
    newest = store.rows(limit=1).rows[0]
    deep = None
    for _ in range(4):
        deep = store.rows(after=deep, limit=10_000).after
    timed("counts()", store.counts)
    for wanted in (
        Filter(model="signs"), Filter(tenant="tenant 1"), Filter(state="open"),
        Filter(client=newest.client), Filter(predicted=7), Filter(decision=Decision.FLAG),
        Filter(defense="noise"), Filter(sampled=True), Filter(p_value_at_most=0.001),
        Filter(model="signs", state="open", tenant="tenant 1", predicted=7),
    ):  # fmt: skip
        named = {name: value for name, value in vars(wanted).items() if value is not None}
        timed(f"counts({named})", lambda wanted=wanted: store.counts(wanted))  # type: ignore[misc]
        timed(f"rows({named})", lambda wanted=wanted: store.rows(wanted))  # type: ignore[misc]
    timed("rows() newest", store.rows)
    timed("rows() most suspicious", lambda: store.rows(order="most_suspicious"))
    timed("rows() after 40,000", lambda: store.rows(after=deep))
    timed("rows(model nobody has)", lambda: store.rows(Filter(model="none")))
    timed("row()", lambda: store.row(newest.id))
    timed("get()", lambda: store.get(newest.id))
    timed("similar()", lambda: store.similar(newest.id))
    timed("claim(10)", lambda: store.claim("ann", Filter(), limit=10))
    seeds = iter(range(10_000_000, 20_000_000))
    timed("put(1)", lambda: store.put([made(store, next(seeds))]))
    timed("put(32)", lambda: store.put([made(store, next(seeds)) for _ in range(32)]))
    timed("review(1)", lambda: store.review([newest.id], Review("ann", "benign", time.time())))
    timed("undo()", lambda: store.undo("ann"))
    ids = [row.id for row in store.rows(limit=5000).rows]
    store.review(ids, Review("ann", "unsure", time.time()))
    timed(
        "claim(10), 5,000 newest labelled by the same",
        lambda: store.claim("ann", Filter(), limit=10),
    )
    timed("erase(1)", lambda: store.erase(Filter(ids=[store.rows(limit=1).rows[0].id])))
    begun = time.perf_counter()
    count = store.rotate()
    print(f"rotate(): {count} keys in {time.perf_counter() - begun:.1f} s")


def main() -> None:
    """Fill and ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--folder", default=None, help="where; kept and used again")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(given.folder or scratch)
        begun = time.perf_counter()
        store = embedded(folder)
        print(f"opened in {time.perf_counter() - begun:.2f} s, {os.cpu_count()} cores")
        missing = given.count - store.counts().total
        if missing > 0:
            fill(store, given.count)
        questions(store)
        store.close()


if __name__ == "__main__":
    main()
