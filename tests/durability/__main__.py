"""What survives kill -9, power cuts and disks that are full or broken.

python -m tests.durability kill --rounds 1000
python -m tests.durability powercut --rounds 50
python -m tests.durability full --cycles 50       # a gateway on a full, short-writing, broken disk
python -m tests.durability powercut --lie records # syncs of records do nothing: must be noticed

Exits 1 when something acknowledged was lost or altered, or does not go on.
"""

import argparse
import sys
import time

from tests.durability import full, rounds
from tests.durability.mount import lacking


def main(arguments: list[str]) -> int:
    """Run one of them; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.durability")
    parser.add_argument("what", choices=("kill", "powercut", "full"))
    parser.add_argument("--rounds", "--cycles", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lie", default="", help="part of a path whose syncs do nothing")
    options = parser.parse_args(arguments)
    missing = "" if options.what == "kill" else lacking()
    if missing:
        sys.stderr.write(f"{missing}\n")
        return 2
    began = time.monotonic()
    if options.what == "kill":
        tally = rounds.kill(options.rounds, options.seed)
    elif options.what == "powercut":
        tally = rounds.powercut(options.rounds, options.seed, lie=options.lie)
    else:
        tally = full.cycles(options.rounds, options.seed)
    wrong = "".join(f"{one}\n" for one in tally.wrong[:20])
    sys.stdout.write(f"{wrong}{tally.line()}; {time.monotonic() - began:.0f} s\n")
    return int(bool(tally.wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
