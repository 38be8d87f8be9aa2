"""How much an attacker who writes part of the reviewed log can spoil: deploy/docs/poisoning.md.

python -m tests.poisoning --pack models/gtsrb --data DATA --victim CLASSIFIER --seeds 5

Rows of pictures are made once and kept in --work. Exits 1 where a promoted detector lost more than
a point of TPR at 5% on the frozen hold-out, the attacker having 10% of the pool or less.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

from guard import rows
from guard.defenses.load import load_detector
from guard.pack import Pack
from tests.poisoning.material import material
from tests.poisoning.table import Trial, as_json, broken, markdown, trials


def cached(pack: Pack, work: Path) -> Path:
    """Where the rows made for this pack are kept."""
    return work / f"{pack.name}-{pack.digest.rpartition(':')[2][:12]}.npz"


def main(words: list[str]) -> int:
    """Play all of it; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.poisoning")
    parser.add_argument("--pack", type=Path, default=Path("models/gtsrb"))
    parser.add_argument("--data", default="signs", help="pictures, as guard pack build takes them")
    parser.add_argument("--victim", type=Path, help="folder of a trained production classifier")
    parser.add_argument("--work", type=Path, default=Path("work/poisoning"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", help="attackers whose name holds this")
    asked = parser.parse_args(words)
    torch.set_num_threads(1)
    pack = Pack.load(asked.pack)
    cache = cached(pack, asked.work)
    if asked.victim is None and not cache.exists():
        parser.error("--victim is needed the first time, to make attacks on")
    found: list[Trial] = []
    sent = material(pack, asked.data, asked.victim, cache)
    tables = rows.load(pack.files[rows.FILE])
    for trial in trials(load_detector(pack), tables, sent, asked.seeds, asked.only):
        found.append(trial)
        sys.stderr.write(f"{trial}\n")
        (asked.work / "trials.json").write_text(json.dumps(as_json(found), indent=1))
    sys.stdout.write(markdown(found))
    for trial in broken(found):
        sys.stderr.write(f"lost more than a point: {trial}\n")
    return int(bool(broken(found)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
