"""python -m tests.fuzz --executions 1000000 [--target NAME ...] [--seed N] [--out FOLDER]

Runs the targets one after the other, each in a process of its own, and prints a table. Inputs that
found something are written to FOLDER/TARGET; the exit status is 1 if there are any. With atheris
installed (Python 3.11 has wheels) `--engine atheris` lets its coverage choose the inputs instead.
"""

import argparse
import importlib.util
import logging
import sys
from pathlib import Path

from tests.fuzz.targets import TARGETS


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--executions", type=int, default=100_000)
    parser.add_argument("--target", action="append", choices=sorted(TARGETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=("own", "atheris"), default="own")
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--table", type=Path, help="write the table there too")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine == "atheris" and importlib.util.find_spec("atheris") is None:
        parser.error("atheris is not installed: leave --engine out, or pip install atheris")
    logging.disable(logging.CRITICAL)  # what guard logs about bad inputs is not of interest here
    if options.child:
        from tests.fuzz import child

        child.work(options.child, options.executions, options.seed, options.out, options.engine)
        return 0
    from tests.fuzz import supervise

    names = options.target or list(TARGETS)
    return supervise.run(
        names,
        options.executions,
        seed=options.seed,
        engine=options.engine,
        out=options.out,
        table=options.table,
    )


if __name__ == "__main__":
    sys.exit(main())
