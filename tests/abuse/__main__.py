"""Hostile connections against a real gateway, with a healthy client beside them.

python -m tests.abuse --seconds 60 --connections 50      every attack at once
python -m tests.abuse --each --seconds 10                one after the other
"""

import argparse
import sys
from pathlib import Path

from tests.abuse.attackers import ATTACKERS
from tests.abuse.siege import HEAD, besiege


def main() -> int:
    """Print the table; 1 when the healthy client or the limit suffered."""
    parser = argparse.ArgumentParser(prog="python -m tests.abuse", description=__doc__)
    parser.add_argument("--pack", type=Path, default=Path("models/signs"))
    parser.add_argument("--attack", action="append", choices=list(ATTACKERS))
    parser.add_argument("--each", action="store_true", help="one attack after the other")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--rate", type=float, default=20, help="healthy requests a second")
    chosen = parser.parse_args()
    attacks = chosen.attack or list(ATTACKERS)
    sys.stdout.write(HEAD + "\n")
    good = True
    for group in [[attack] for attack in attacks] if chosen.each else [attacks]:
        outcome = besiege(
            chosen.pack,
            group,
            connections=chosen.connections,
            seconds=chosen.seconds,
            rate=chosen.rate,
        )
        sys.stdout.write(outcome.row() + "\n")
        sys.stdout.flush()
        good &= outcome.ok >= 0.999 and outcome.most_in_flight <= outcome.limit
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
