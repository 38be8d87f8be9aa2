"""Play the fault matrix against real gateways and write its table into deploy/docs/faults.md.

python -m tests.faults            # all of it; exits 1 when a fault does not go as documented
python -m tests.faults NaN disk   # only faults whose names hold one of these; writes nothing
"""

import asyncio
import sys

from tests.faults.frame import Result, run
from tests.faults.matrix import all_faults, table, write
from tests.faults.prometheus import present


def main(words: list[str]) -> int:
    """Play, print, write; the exit status."""
    if not present():
        sys.stderr.write("no prometheus and promtool: deploy/ci/install services\n")
        return 2
    chosen = [f for f in all_faults() if not words or any(word in f.name for word in words)]
    results: list[Result] = []
    for one in chosen:
        lacking = one.needs()
        if lacking:
            sys.stderr.write(f"skipped: {one.name}: {lacking}\n")
            continue
        results.append(asyncio.run(run(one)))
        sys.stderr.write(f"{len(results)}/{len(chosen)} {one.name}: {results[-1].wrong or 'ok'}\n")
    text = table(results)
    sys.stdout.write(f"{text}\n")
    if not words and len(results) == len(chosen):
        write(text)
    return int(any(result.wrong for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
