"""How many of 300 small faults in the security modules the tests notice (goal: 80%).

python -m tests.mutation [--sample 300] [--seed 0] [--only TEXT] [--again] [--control 20]
                         [--folder .cache/mutation] [--report]

Works in a copy of the tree, one fault at a time, and can be stopped and started again: what was
killed stays killed as long as the module is the same; --again tries the survivors of earlier runs
anew, for tests that were added since. --control runs the tests on unchanged code so many times:
what fails there says how many kills are luck. --report prints what is known and runs nothing.
"""

import argparse
import hashlib
import itertools
import json
import os
import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.mutation.mutants import Mutant, mutants
from tests.mutation.suite import Suite
from tests.mutation.targets import ROOT, UNSEEN, targets

FIRST_SECONDS = 4.0  # of the tests that run a line, the quickest come first, for so long
SLOWEST = 5  # times the usual, then it hangs


def digest(*parts: str) -> str:
    """A short name for texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def sampled(count: int, seed: int, texts: dict[str, str]) -> list[Mutant]:
    """A random sample; a module more or less leaves the others' in it."""
    found = [one for path, text in texts.items() for one in mutants(path, text)]
    return sorted(found, key=lambda one: digest(str(seed), one.name))[:count]


class Results:
    """What is known of each mutant, a line of JSON each in one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.known: dict[tuple[str, str], dict[str, Any]] = {}
        for one in map(json.loads, lines):
            self.known[one["name"], one["module"]] = one

    def add(self, mutant: Mutant, module: str, killed_by: str, seconds: float) -> None:
        """Remember how it ended; `killed_by` is "" for a survivor."""
        one = {"name": mutant.name, "module": module, "line": mutant.line, "text": mutant.text}
        one |= {"killed_by": killed_by, "seconds": round(seconds, 1)}
        self.known[mutant.name, module] = one
        with self._path.open("a") as file:
            file.write(json.dumps(one) + "\n")


def measure(suite: Suite, tests: Iterable[str], modules: Iterable[str], file: Path) -> Any:
    """What each test runs and how long it takes; stops where a test fails without any fault.

    Measured once for one state of all modules and tests.
    """
    sources = sorted(path for name in ("guard", "tests") for path in Path(name).rglob("*.py"))
    state = digest(*(path.read_text() for path in sources), *sorted(modules))
    if file.exists() and (known := json.loads(file.read_text())).get("state") == state:
        return known
    os.environ["GUARD_MUTATION_MAP"] = str(file)
    os.environ["GUARD_MUTATION_INCLUDE"] = ",".join(str(suite.tree / one) for one in modules)
    outcome = suite.run(sorted(set(tests)), 1200, plugin="tests.mutation.contexts")
    if outcome.failed:
        sys.exit(f"{outcome.failed} fails without any fault: see last-run.log")
    seen = {**json.loads(file.read_text()), "state": state}
    file.write_text(json.dumps(seen))
    return seen


def plans(seen: Any, mutant: Mutant, tests: tuple[str, ...]) -> list[list[str]]:
    """What to run, one list after the other until a test fails.

    First the quickest of the tests that run this line, then the others that do, with those whose
    doings in other processes nobody saw. A line that only an import runs, or no test that was
    seen, gets all of them.
    """
    covering = seen["lines"].get(mutant.path, {}).get(str(mutant.line), ())
    mine = sorted(
        (test for test in covering if test.startswith(tests)),
        key=lambda test: float(seen["seconds"][test]),
    )
    total = list(itertools.accumulate(seen["seconds"][test] for test in mine))
    count = max(1, sum(seconds < FIRST_SECONDS for seconds in total))
    rest = mine[count:] + [test for test in UNSEEN if test.startswith(tests)]
    return [mine[:count], rest] if mine else [list(tests)]


def attempt(
    suite: Suite, mutant: Mutant, text: str, seen: Any, tests: tuple[str, ...]
) -> tuple[str, float]:
    """The test that notices this fault ("" for none), and the seconds that took."""
    suite.put(mutant.path, mutant.source(text))
    try:
        spent = 0.0
        for chosen in filter(None, plans(seen, mutant, tests)):
            usual = sum(s for t, s in seen["seconds"].items() if t.startswith(tuple(chosen)))
            outcome = suite.run(chosen, 30 + SLOWEST * usual)
            spent += outcome.seconds
            if outcome.failed:
                return outcome.failed, spent
        return "", spent
    finally:
        suite.put(mutant.path, text)


def report(sample: list[Mutant], results: Results, modules: dict[str, str]) -> int:
    """The score of what was run, by module, and who survives."""
    known = [results.known.get((one.name, modules[one.path])) for one in sample]
    done = [(one, found) for one, found in zip(sample, known, strict=True) if found]
    for one, found in done:
        if not found["killed_by"]:
            print(f"survives  {one.path}:{one.line} {one.kind}: {one.text}")
    print("\n| module | mutants | killed |\n|---|---|---|")
    for path in sorted({one.path for one in sample}):
        mine = [found for one, found in done if one.path == path]
        print(f"| `{path}` | {len(mine)} | {sum(bool(one['killed_by']) for one in mine)} |")
    killed = sum(bool(found["killed_by"]) for _, found in done)
    share = 100 * killed / max(1, len(done))
    print(f"| all | {len(done)} of {len(sample)} | {killed} ({share:.1f}%) |")
    return 0 if len(done) == len(sample) and share >= 80 else 1


def main() -> int:
    """Run what is not known yet, then report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sample", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="modules whose path has this in it")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--control", type=int, default=0)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--folder", type=Path, default=ROOT / ".cache" / "mutation")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    mirrors = {path: tests for path, tests in targets().items() if asked.only in path}
    texts = {path: (ROOT / path).read_text() for path in mirrors}
    modules = {path: digest(text) for path, text in texts.items()}
    sample = sampled(asked.sample, asked.seed, texts)
    results = Results(asked.folder / "results.jsonl")
    if asked.report:
        return report(sample, results, modules)
    suite = Suite(asked.folder)
    suite.fresh()
    suite.begin()
    tests = {test for some in mirrors.values() for test in some}
    seen = measure(suite, tests, mirrors, asked.folder / "map.json")
    suite.warm()
    print(f"{len(sample)} mutants, {len(seen['seconds'])} tests", flush=True)
    luck = random.Random(asked.seed)
    for number in range(asked.control):
        chosen = luck.choice(sorted(mirrors.values()))
        outcome = suite.run(list(chosen), 600)
        print(f"control {number + 1}: {outcome.failed or 'passes'}", flush=True)
    for number, one in enumerate(sample, start=1):
        found = results.known.get((one.name, modules[one.path]))
        if found is not None and (found["killed_by"] or not asked.again):
            continue
        killed_by, seconds = attempt(suite, one, texts[one.path], seen, mirrors[one.path])
        results.add(one, modules[one.path], killed_by, seconds)
        state = f"killed by {killed_by}" if killed_by else "SURVIVES"
        print(f"{number}/{len(sample)} {one.path}:{one.line} {one.text}: {state}", flush=True)
    return report(sample, results, modules)


if __name__ == "__main__":
    sys.exit(main())
