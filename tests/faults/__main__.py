"""Play the fault matrix against real gateways and write its table into deploy/docs/faults.md.

python -m tests.faults            # all of it; exits 1 when a fault does not go as documented
python -m tests.faults NaN disk   # only faults whose names hold one of these; writes nothing
"""

import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.faults.frame import Fault, Result, run
from tests.faults.matrix import all_faults, table, write
from tests.faults.prometheus import present
from tests.faults.stage import House


def main(words: list[str]) -> int:
    """Play, print, write; the exit status."""
    if not present():
        sys.stderr.write("no prometheus and promtool: deploy/ci/install services\n")
        return 2
    chosen = [f for f in all_faults() if not words or any(word in f.name for word in words)]
    playable = [one for one in chosen if not _lacking(one)]
    results = asyncio.run(play(playable))
    text = table(results)
    sys.stdout.write(f"{text}\n")
    if not words and len(results) == len(chosen):
        write(text)
    return int(any(result.wrong for result in results))


async def play(chosen: Sequence[Fault], at_once: int = 1) -> list[Result]:
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
            return result

        return await asyncio.gather(*map(alone, chosen))


def _lacking(one: Fault) -> str:
    lacking = one.needs()
    if lacking:
        sys.stderr.write(f"skipped: {one.name}: {lacking}\n")
    return lacking


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
