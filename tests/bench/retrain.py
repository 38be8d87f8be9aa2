"""How long a round of learning takes: `python -m tests.bench.retrain --pack models/gtsrb`.

Suspects are invented (tests/training/traffic.py): what counts here is time, not what is learned.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from guard.pack import Pack
from guard.training.retrain import Order, retrain
from tests.training.traffic import cases

ELSEWHERE = "sha256:" + "0" * 64


def main() -> None:
    """Print the seconds of every step, with stored evidence and with evidence computed again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", type=Path, default=Path("models/gtsrb"))
    parser.add_argument("--count", type=int, default=250, help="Suspects of either kind.")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    parent = Pack.load(arguments.pack)
    print("| evidence | suspects | " + " | ".join(STEPS) + " | all |")
    print("|---|---:|" + "---:|" * (len(STEPS) + 1))
    for name, digest in (("stored", ""), ("computed again", ELSEWHERE)):
        for run in range(arguments.runs):
            found = cases(parent, arguments.count, seed=run, digest=digest)
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                made = retrain(found, Order(parent, Path(folder) / "candidate"))
                whole = time.perf_counter() - start
            steps = " | ".join(f"{made.seconds[step]:.1f}" for step in STEPS)
            print(f"| {name} | {len(found)} | {steps} | {whole:.1f} |", flush=True)


STEPS = ("read", "select", "learn", "export", "gate")

if __name__ == "__main__":
    main()
