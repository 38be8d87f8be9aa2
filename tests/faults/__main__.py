"""Play the fault matrix against real gateways; the table is in deploy/docs/faults.md.

python -m tests.faults            # all of it; exits 1 when a fault does not go as documented
python -m tests.faults NaN disk   # only faults whose names hold one of these
python -m tests.faults --open     # only faults that have no row in the table, or failed

Each fault's row is written as soon as it is over.
"""

import asyncio
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.faults.frame import Fault, Result, run
from tests.faults.matrix import FAILED, all_faults, rows, write
from tests.faults.prometheus import present
from tests.faults.stage import House


def main(words: list[str]) -> int:
    """Play and write; the exit status."""
    if not present():
        sys.stderr.write("no prometheus and promtool: deploy/ci/install services\n")
        return 2
    chosen = [one for one in all_faults() if _wanted(one, words) and not _lacking(one)]
    results = asyncio.run(play(chosen, done=write))
    return int(any(result.wrong for result in results))


def _wanted(one: Fault, words: list[str]) -> bool:
    if words == ["--open"]:
        return FAILED in rows().get(one.name, FAILED)
    return not words or any(word in one.name for word in words)


async def play(
    chosen: Sequence[Fault], at_once: int = 1, done: Callable[[Result], None] = lambda _result: None
) -> list[Result]:
    """Play these faults, each with processes and ports of its own; what they did, in order."""
    names, secure = [one.name for one in chosen], [one.secure for one in chosen]
    free = asyncio.Semaphore(at_once)
    with (
        tempfile.TemporaryDirectory(prefix="guard-faults-") as folder,
        House(Path(folder), names, secure=secure) as house,
    ):

        async def alone(one: Fault) -> Result:
            async with free:
                result = await run(one, house)
            sys.stderr.write(f"{one.name}: {result.wrong or 'ok'}\n")
            done(result)
            return result

        return await asyncio.gather(*map(alone, chosen))


def _lacking(one: Fault) -> str:
    lacking = one.needs()
    if lacking:
        sys.stderr.write(f"skipped: {one.name}: {lacking}\n")
    return lacking


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
