"""Branch coverage of the security modules by the tests that mirror them (goal: 90% each).

python -m tests.mutation.branches [--only TEXT]

Prints a row a module and ends with 1 where one is below the goal or a test fails. What other
processes and gRPC's own threads run is not seen.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import pytest

from tests.mutation.contexts import FILE, INCLUDE, Plugin
from tests.mutation.targets import ROOT, targets

GOAL = 90.0


def main() -> int:
    """Run the tests, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", default="", help="modules whose path has this in it")
    asked = parser.parse_args()
    mirrors = {path: tests for path, tests in targets().items() if asked.only in path}
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[FILE] = str(Path(folder) / "map.json")
        os.environ[INCLUDE] = ",".join(str(ROOT / path) for path in mirrors)
        tests = sorted({test for some in mirrors.values() for test in some})
        code = int(pytest.main(["-q", "-p", "no:cacheprovider", *tests], plugins=[Plugin()]))
        covered = json.loads(Path(os.environ[FILE]).read_text())["coverage"]
    print("\n| module | statements | branches | covered | lines never run |\n|---|---|---|---|---|")
    for path in mirrors:
        one = covered[path]
        missing = ", ".join(map(str, one["lines"])) or "none"
        numbers = f"{one['num_statements']} | {one['num_branches']}"
        print(f"| `{path}` | {numbers} | {one['percent_covered']:.1f}% | {missing} |")
    low = [path for path in mirrors if covered[path]["percent_covered"] < GOAL]
    return 1 if low or code else 0


if __name__ == "__main__":
    sys.exit(main())
