"""How fast the console's pages are with a full store.

    python -m tests.bench.console [--count 100000] [--folder F] [--times 40]

Fills a store, serves the console over it on loopback, and asks for pages as a browser would that
is logged in: milliseconds from the request to the last byte, median, 99th percentile, slowest; and
the processor's time for one, asking included, which other work on the machine changes little.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from guard.console.serving import Place, opened
from guard.gateway.audit.recorder import OFF
from guard.suspects.opening import open_keys, open_store
from tests.bench.suspects import fill
from tests.console.browsing import Browser
from tests.console.stock import pipeline, settings


def timed(browser: Browser, name: str, path: str, times: int) -> None:
    """Ask for a page so often, and print how long it took."""
    took, before = [], time.process_time()
    for _ in range(times):
        begun = time.perf_counter()
        answer = browser.get(path)
        took.append(1e3 * (time.perf_counter() - begun))
        if answer.status != 200:
            raise SystemExit(f"{path}: HTTP {answer.status}")
    low, high = np.percentile(took, (50, 99))
    spent = 1e3 * (time.process_time() - before) / times
    print(f"{name:40s} {low:7.1f} {high:7.1f} {max(took):7.1f} {spent:7.1f}", flush=True)


def pages(browser: Browser, times: int) -> None:
    """What people look at."""
    print(f"{'ms, of ' + str(times) + ' each':40s}  median     p99 slowest     CPU")
    first = browser.get("/suspects").text
    one = first.partition('href="/suspects/')[2].partition('"')[0]
    deep = "/suspects"
    for _ in range(20):
        after = browser.get(deep).text.partition('rel="next" href="')[2].partition('"')[0]
        if not after:
            break
        deep = after.replace("&amp;", "&")
    for name, path in {
        "queue, newest": "/suspects",
        "queue, the 21st page": deep,
        "queue, most suspicious": "/suspects?order=most_suspicious",
        "queue, open, of one model": "/suspects?state=open&model=signs",
        "queue, one class": "/suspects?class=7",
        "queue, one defence alarmed": "/suspects?defense=noise",
        "queue, p at most 0.001": "/suspects?p=0.001",
        "queue, a model nobody has": "/suspects?model=none",
        "one suspect, without its pack": f"/suspects/{one}",
        "its picture": f"/suspects/{one}/image.png",
        "counters": "/counts.json",
    }.items():
        timed(browser, name, path, times)


def judging(browser: Browser, times: int) -> None:
    """A label, and the next suspect's page: what a key press costs."""
    took, before, location = [], time.process_time(), browser.get("/review").location
    for _ in range(times):
        one = location.removeprefix("/suspects/")
        begun = time.perf_counter()
        location = browser.post("/label", {"id": one, "at": one, "label": "benign"}).location
        if not location.startswith("/suspects/"):
            location = browser.get(location).location  # the next few are claimed
        browser.get(location)
        took.append(1e3 * (time.perf_counter() - begun))
    low, high = np.percentile(took, (50, 99))
    spent = 1e3 * (time.process_time() - before) / times
    print(f"{'a label, and the next':40s} {low:7.1f} {high:7.1f} {max(took):7.1f} {spent:7.1f}")
    browser.post("/undo", {})


def main() -> None:
    """Fill, serve, ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=40)
    parser.add_argument("--folder", type=Path, help="kept, and used again; default: a new one")
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        config = settings(given.folder or Path(scratch))
        keys = open_keys(config.suspects.key_file)
        store = open_store(keys, folder=config.suspects.folder)
        if store.counts().total < given.count:
            fill(store, given.count)
        with opened(config, Place(store, OFF, None, {"signs": pipeline()})) as port:
            pages(Browser(port.url).log_in(), given.times)
            judging(Browser(port.url).log_in(), given.times)
        store.close()


if __name__ == "__main__":
    main()
